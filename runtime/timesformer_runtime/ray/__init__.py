"""Videos on a cluster: a class for Ray Data, and the work of ``timesformer batch --ray``.

    from timesformer_runtime.ray import ClassifyVideos

    videos = ray.data.from_items([{"video": path} for path in paths])
    videos.map_batches(ClassifyVideos, fn_constructor_args=["/data/my-model"], batch_size=16)

The class itself does not need Ray: it also works in a pandas UDF of PySpark.
"""

from timesformer_runtime.ray.columns import ClassifyVideos

__all__ = ["ClassifyVideos"]
