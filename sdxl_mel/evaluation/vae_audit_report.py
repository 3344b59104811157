"""What the stage `vae-audit` reports."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from sdxl_mel.config import StageReport


class Band(BaseModel):
    """A group of mel bands: the mean absolute error and the mean change of level, in dB."""

    model_config = ConfigDict(frozen=True)

    low_hz: float
    high_hz: float
    error_db: float
    change_db: float


class ClipReport(BaseModel):
    """One clip: its errors, and the mel convergence of its sound without and with the VAE where it was heard."""

    model_config = ConfigDict(frozen=True)

    source: str
    psnr_db: float
    mel_error_db: float
    convergence_without_db: float | None = None
    convergence_with_db: float | None = None


class Report(StageReport):
    """What the VAE costs, over all clips and one by one; decibels."""

    page: Path
    split: str
    psnr_db: float
    mel_error_db: float
    convergence_without_db: float
    convergence_with_db: float
    bands: tuple[Band, ...]
    clips: tuple[ClipReport, ...]

    def summary(self) -> str:
        """Return the figures and where the report is."""
        worst = max(self.bands, key=lambda band: band.error_db)
        return (
            f"VAE round trip of {len(self.clips)} clips ({self.split}): PSNR {self.psnr_db:.1f} dB, "
            f"mel error {self.mel_error_db:.2f} dB, most ({worst.error_db:.2f} dB) at "
            f"{worst.low_hz:.0f} to {worst.high_hz:.0f} Hz\n"
            f"sound against its picture (mel convergence): {self.convergence_without_db:.1f} dB without the VAE, "
            f"{self.convergence_with_db:.1f} dB with it\n"
            f"{self.page}"
        )
