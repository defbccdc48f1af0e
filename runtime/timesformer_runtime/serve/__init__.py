"""Serves loaded models over HTTP: ``timesformer serve``. Needs the extra ``serve``.

FastAPI describes and routes the requests, uvicorn speaks HTTP, and prometheus_client counts. This
room decides who may come in and work when (``place``, ``engine``), how uploads arrive
(``uploads``, ``form``), when connections end (``connections``), and how the two interfaces look:
the one for people (``people``) and the Open Inference Protocol (``protocol``).
"""
