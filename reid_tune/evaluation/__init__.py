"""Scoring of embeddings: features -> neighbours -> re-ranking -> CMC, mAP and mINP -> intervals and plots."""
