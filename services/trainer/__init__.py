"""The trainer: fine-tunes pretrained models on labelled text."""
