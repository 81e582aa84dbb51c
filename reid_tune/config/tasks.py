"""Sections `re_ranking`, `evaluate`, `inference` and `export`."""

from typing import Literal

from pydantic import Field

from reid_tune.config.base import Section
from reid_tune.config.gpus import GpuSelection

__all__ = ["Evaluate", "Export", "ExportPrecision", "Inference", "InputLayout", "ReRankingSection"]

InputLayout = Literal["float_nchw", "uint8_nhwc"]
ExportPrecision = Literal["fp32", "fp16"]


class ReRankingSection(Section):
    re_ranking: bool = Field(True, description="Re-rank in `evaluate`; a validation mAP is always plain.")
    k1: int = Field(20, ge=1, description="k of the k-reciprocal neighbours.")
    k2: int = Field(6, ge=1, description="k of the local query expansion.")
    lambda_value: float = Field(0.3, ge=0, le=1, description="Weight of the original distance.")
    max_rank: int = Field(10, ge=1, description="Ranks in the pictures of the CMC curve and of sampled matches.")
    num_query: int = Field(10, ge=1, description="Queries in the picture of sampled matches.")


class _Task(GpuSelection):
    checkpoint: str | None = Field(None, description="A checkpoint, .onnx file, models:/NAME@ALIAS or sweep:NAME.")
    results_dir: str | None = Field(
        None, description="Folder of the results; default the task's name below the top one."
    )
    test_dataset: str | None = Field(None, description="Folder of gallery images; default dataset.test_dataset_dir.")
    query_dataset: str | None = Field(None, description="Folder of query images; default dataset.query_dataset_dir.")


class Evaluate(_Task):
    checkpoint: str | None = Field(
        None,
        description="A checkpoint, a folder of checkpoints, .onnx file, models:/NAME@ALIAS or sweep:NAME.",
    )
    output_sampled_matches_plot: str | None = Field(None, description="Picture of queries and their best matches.")
    sampled_matches: Literal["random", "hardest"] = Field(
        "random", description="Queries of that picture: drawn by train.seed, or those of lowest average precision."
    )
    output_cmc_curve_plot: str | None = Field(None, description="Picture of the CMC curve.")
    output_distances_plot: str | None = Field(
        None, description="Picture of the distances of same and different identities, with the threshold for fmr."
    )
    fmr: float = Field(
        0.001, gt=0, lt=1, description="False-match rate of the decision threshold: pairs of strangers within it."
    )
    details: bool = Field(False, description="Add the scores of camera pairs and identities to metrics.json.")


class Inference(_Task):
    output_file: str | None = Field(
        None,
        description="File for the embeddings of all images, .json, .npz or .parquet; default embeddings.json in "
        "results_dir.",
    )


class Export(Section):
    checkpoint: str | None = Field(None, description="A checkpoint, models:/NAME@ALIAS or sweep:NAME.")
    results_dir: str | None = Field(None, description="Folder of the results; default: the task's below the top one.")
    onnx_file: str | None = Field(None, description="The file to write; default beside the checkpoint.")
    threshold: str | None = Field(
        None,
        description="JSON file of `threshold --output`, or a metrics.json; its decision threshold goes into the model.",
    )
    l2_normalize: bool = Field(False, description="The embeddings have norm 1.")
    input: InputLayout = Field(
        "float_nchw",
        description="`float_nchw`: normalised images, float32 [batch, channels, H, W]; `uint8_nhwc`: resized ones, "
        "uint8 [batch, H, W, channels], which the model normalises itself.",
    )
    precision: ExportPrecision = Field(
        "fp32", description="Weights and arithmetic of the model; input and embeddings keep their types with fp16."
    )
    gpu_id: int = Field(0, ge=0, description="Index of the GPU of the comparison; the export itself needs none.")
    overwrite: bool = Field(False, description="Replace an existing file.")
