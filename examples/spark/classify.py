"""Classifies videos with Spark: a table of paths becomes a table of labels.

    spark-submit classify.py MODEL FOLDER OUTPUT.parquet

MODEL and FOLDER must be there under these paths on each machine, as on a shared disk.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.functions import col, pandas_udf
from timesformer_runtime.ray import ClassifyVideos

RESULT = (
    "labels array<string>, scores array<double>, times array<double>, "
    "problems array<string>, error string"
)


def classified(videos: DataFrame, model: str) -> DataFrame:
    """Adds the columns of ``RESULT`` to a table whose column ``video`` has paths or bytes."""

    @pandas_udf(RESULT)
    def classify(batches: Iterator[pd.Series]) -> Iterator[pd.DataFrame]:
        classifier = ClassifyVideos(model, threads=1)  # loaded once for each partition
        for batch in batches:
            found = classifier({"video": batch})
            names = ("labels", "scores", "times", "problems", "error")
            yield pd.DataFrame({name: found[name].to_pylist() for name in names})

    return videos.withColumn("result", classify(col("video"))).select(*videos.columns, "result.*")


def main() -> None:
    """Classifies the MP4 files of a folder."""
    model, folder, output = sys.argv[1:]
    spark = (
        SparkSession.builder.appName("timesformer")
        # Videos of a batch: while one is decoded, the model works on another.
        .config("spark.sql.execution.arrow.maxRecordsPerBatch", 16)
        .getOrCreate()
    )
    # Spark's own listing leaves out empty files, which need a row with an error, too.
    paths = [(str(path),) for path in Path(folder).resolve().glob("*.mp4")]
    videos = spark.createDataFrame(paths, "video string")
    parts = 2 * spark.sparkContext.defaultParallelism
    classified(videos.repartition(parts), model).write.mode("overwrite").parquet(output)
    spark.stop()


if __name__ == "__main__":
    main()
