"""What a TrainingSpec means where it says nothing: the defaults that training.proto documents."""

from conch.v1 import job_pb2, training_pb2

_NUM_EPOCHS, _LEARNING_RATE, _BATCH_SIZE, _MAX_LENGTH = 3.0, 5e-5, 16, 256
_WARMUP_RATIO, _WEIGHT_DECAY, _PATIENCE, _EVALUATIONS, _SEED = 0.06, 0.01, 3, 4, 42
_VALIDATION_FRACTION, _MAX_ATTEMPTS = 0.1, 3


def with_defaults(spec: training_pb2.TrainingSpec) -> training_pb2.TrainingSpec:
    """Returns a copy of `spec` with every default filled in; filling it in again changes nothing."""
    full = training_pb2.TrainingSpec()
    full.CopyFrom(spec)
    full.max_attempts = spec.max_attempts or _MAX_ATTEMPTS
    full.dataset.validation_fraction = spec.dataset.validation_fraction or _VALIDATION_FRACTION
    _fill(full.hyperparameters)
    return full


def _fill(h: training_pb2.Hyperparameters) -> None:
    h.num_epochs = h.num_epochs or _NUM_EPOCHS
    h.learning_rate = h.learning_rate or _LEARNING_RATE
    h.batch_size = h.batch_size or _BATCH_SIZE
    h.gradient_accumulation_steps = h.gradient_accumulation_steps or 1
    h.max_length = h.max_length or _MAX_LENGTH
    h.evaluations_per_epoch = h.evaluations_per_epoch or _EVALUATIONS
    h.precision = h.precision or job_pb2.PRECISION_FP32
    h.warmup_ratio = h.warmup_ratio if h.HasField("warmup_ratio") else _WARMUP_RATIO
    h.weight_decay = h.weight_decay if h.HasField("weight_decay") else _WEIGHT_DECAY
    h.seed = h.seed if h.HasField("seed") else _SEED
    if not h.HasField("early_stopping_patience"):
        h.early_stopping_patience = _PATIENCE
