"""Sections `re_ranking`, `evaluate`, `inference` and `export`."""

from typing import Annotated, Literal

from pydantic import Field

from reid_tune.config.base import GpuSelection, Section

__all__ = [
    "ChannelOrder",
    "Evaluate",
    "Export",
    "ExportPrecision",
    "Inference",
    "InputLayout",
    "ModelInput",
    "ReRankingSection",
]

ChannelOrder = Literal["rgb", "bgr"]

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


class ModelInput(Section):
    """Images that an ONNX file of another tool expects, where neither its graph nor its metadata say so."""

    height: int | None = Field(
        None, ge=1, description="Height in pixels; default: that of the file, or model.input_height."
    )
    width: int | None = Field(
        None, ge=1, description="Width in pixels; default: that of the file, or model.input_width."
    )
    mean: Annotated[tuple[float, ...], Field(min_length=1)] | None = Field(
        None,
        description="Mean of each channel, in the order of channel_order, for values in 0..max_value; default: "
        "that of the file, or dataset.pixel_mean, but 0 where std or max_value is set.",
    )
    std: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] | None = Field(
        None,
        description="Standard deviation of each channel, as for mean; default: that of the file, or "
        "dataset.pixel_std, but 1 where mean or max_value is set.",
    )
    max_value: Literal[1, 255] | None = Field(
        None, description="Value of white before mean and std are applied: 1 or 255; default: 1."
    )
    channel_order: ChannelOrder | None = Field(
        None, description="Order of the channels, rgb or bgr as in OpenCV; default: rgb."
    )
    interpolation: Literal["bilinear", "bicubic"] | None = Field(
        None, description="Filter of the resizing; default: that of the file, or of model.backbone."
    )


class _Task(GpuSelection):
    checkpoint: str | None = Field(None, description="Checkpoint, .onnx file, models:/NAME@ALIAS or sweep:NAME.")
    results_dir: str | None = Field(
        None, description="Folder of the results; default: the task's name in the top-level results_dir."
    )
    test_dataset: str | None = Field(None, description="Folder of gallery images; default: dataset.test_dataset_dir.")
    query_dataset: str | None = Field(None, description="Folder of query images; default: dataset.query_dataset_dir.")
    input: ModelInput = Field(
        default_factory=ModelInput, description="Images that an ONNX file of another tool expects."
    )
    onnx_output: str | None = Field(
        None, description="Name of the embeddings' output in an ONNX file that has several outputs."
    )


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
