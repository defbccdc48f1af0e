"""Damages models and checkpoints, loads and runs them, and watches what they touch.

- ``seeds.py``: small, intact models and checkpoints, and the campaign
- ``damage.py``: chooses a file of a case and damages it, by its format with ``json_damage.py``,
  ``graph_damage.py``, ``tensor_damage.py`` or ``pickle_damage.py``
- ``hostile.py``: hostile texts and paths for any field
- ``lying_hub.py``: a Hub that gives wrong answers
- ``guard.py``: tells when a file outside of the model's folder is touched
- ``worker.py``: loads and runs the damaged models and checkpoints
"""
