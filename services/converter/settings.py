"""The converter's settings."""

from services.jobs.settings import JobSettings


class ConverterSettings(JobSettings):
    """Read once in `__main__`."""

    converter_address: str = "127.0.0.1:50053"
    """Where the converter listens, port 0 = any free one. CONCH_CONVERTER_ADDRESS."""
    converter_worker_module: str = "services.converter.run"
    """Module that is run as the worker process. CONCH_CONVERTER_WORKER_MODULE."""
