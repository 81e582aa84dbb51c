"""Sections `re_ranking`, `evaluate`, `inference` and `export`."""

from typing import Literal

from pydantic import Field

from reid_tune.config.base import GpuSelection, Section

__all__ = ["Evaluate", "Export", "ExportPrecision", "Inference", "InputLayout", "ReRankingSection"]

InputLayout = Literal["float_nchw", "uint8_nhwc"]
ExportPrecision = Literal["fp32", "fp16"]


class ReRankingSection(Section):
    re_ranking: bool = Field(
        True, description="Re-rank in `evaluate`; the mAP of a validation is always without re-ranking."
    )
    k1: int = Field(20, ge=1, description="Number of neighbours for k-reciprocal neighbours.")
    k2: int = Field(6, ge=1, description="Number of neighbours for local query expansion.")
    lambda_value: float = Field(
        0.3,
        ge=0,
        le=1,
        description="Weight of the original distance; the Jaccard distance has weight 1 - lambda_value.",
    )
    max_rank: int = Field(10, ge=1, description="Number of ranks in the plots of the CMC curve and of sampled matches.")
    num_query: int = Field(10, ge=1, description="Number of queries in the plot of sampled matches.")


class _Task(GpuSelection):
    checkpoint: str | None = Field(None, description="Checkpoint, .onnx file, models:/NAME@ALIAS or sweep:NAME.")
    results_dir: str | None = Field(
        None, description="Folder of the results; default: the task's name in the top-level results_dir."
    )
    test_dataset: str | None = Field(None, description="Folder of gallery images; default: dataset.test_dataset_dir.")
    query_dataset: str | None = Field(None, description="Folder of query images; default: dataset.query_dataset_dir.")


class Evaluate(_Task):
    checkpoint: str | None = Field(
        None,
        description="Checkpoint, folder of checkpoints, .onnx file, models:/NAME@ALIAS or sweep:NAME.",
    )
    output_sampled_matches_plot: str | None = Field(
        None, description="File for a plot of queries and their best matches."
    )
    sampled_matches: Literal["random", "hardest"] = Field(
        "random", description="Queries in that plot: drawn by train.seed, or those with the lowest average precision."
    )
    output_cmc_curve_plot: str | None = Field(None, description="File for a plot of the CMC curve.")
    output_distances_plot: str | None = Field(
        None,
        description="File for a plot of the distances of same and different identities, with the threshold for fmr.",
    )
    fmr: float = Field(
        0.001,
        gt=0,
        lt=1,
        description="False-match rate of the decision threshold: fraction of pairs of different identities within it.",
    )
    details: bool = Field(False, description="Add the scores per camera pair and per identity to metrics.json.")


class Inference(_Task):
    output_file: str | None = Field(
        None,
        description="File for the embeddings of all images, .json, .npz or .parquet; default: embeddings.json in "
        "results_dir.",
    )


class Export(Section):
    checkpoint: str | None = Field(None, description="Checkpoint, models:/NAME@ALIAS or sweep:NAME.")
    results_dir: str | None = Field(
        None, description="Folder of the results; default: `export` in the top-level results_dir."
    )
    onnx_file: str | None = Field(None, description="ONNX file to write; default: next to the checkpoint.")
    threshold: str | None = Field(
        None,
        description="JSON file of `threshold --output` or a metrics.json, whose threshold is stored in the model.",
    )
    l2_normalize: bool = Field(False, description="L2-normalise the embeddings in the model.")
    input: InputLayout = Field(
        "float_nchw",
        description="`float_nchw`: normalised images, float32 [batch, channels, H, W]; `uint8_nhwc`: resized images, "
        "uint8 [batch, H, W, channels], which the model normalises.",
    )
    precision: ExportPrecision = Field(
        "fp32", description="Precision of the weights and operations; input and embeddings keep their types with fp16."
    )
    gpu_id: int = Field(
        0, ge=0, description="Index of the GPU for the comparison with PyTorch; the export itself needs none."
    )
    overwrite: bool = Field(False, description="Replace an existing file.")
