"""Damages models and checkpoints, loads and runs them, and watches what they touch.

- ``seeds.py``: small, intact models and checkpoints, and the campaign
- ``damage.py``: which file of a case is damaged, and how; by what they hold: ``json_damage.py``,
  ``graph_damage.py``, ``tensor_damage.py``, ``pickle_damage.py``
- ``lying_hub.py``: a Hub whose answers are not true
- ``guard.py``: tells when something outside of the model's folder is touched
- ``worker.py``: loads and runs them
"""
