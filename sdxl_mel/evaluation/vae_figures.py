"""The figures of an audit: what a VAE costs over all clips and one by one, and the distances of an embedder."""

from collections.abc import Sequence

from sdxl_mel.files.header import Frozen


def by_band(change: Sequence[float]) -> str:
    """Return changes of several bands in words."""
    return " ".join(f"{each:+.1f}" for each in change)


class FrequencyRange(Frozen):
    """A group of mel bands: the mean absolute error and the mean change of level, in dB."""

    low_hz: float
    high_hz: float
    error_db: float
    change_db: float


class ClipErrors(Frozen):
    """One clip: its errors, and the mel convergence of its sound without and with the VAE where it was inverted."""

    source: str
    psnr_db: float
    mel_error_db: float
    convergence_without_db: float | None = None
    convergence_with_db: float | None = None


class AuditFigures(Frozen):
    """What the VAE costs, over all clips and one by one, from the best to the worst; decibels."""

    split: str
    psnr_db: float
    mel_error_db: float
    level_bias_db: float
    texture_db: tuple[float, ...]
    convergence_without_db: float
    convergence_with_db: float
    bands: tuple[FrequencyRange, ...]
    clips: tuple[ClipErrors, ...]

    def text(self) -> str:
        """Return the figures in three lines."""
        worst = max(self.bands, key=lambda band: band.error_db)
        return (
            f"VAE round trip of {len(self.clips)} clips ({self.split}): PSNR {self.psnr_db:.1f} dB, "
            f"mel error {self.mel_error_db:.2f} dB, most ({worst.error_db:.2f} dB) at "
            f"{worst.low_hz:.0f} to {worst.high_hz:.0f} Hz\n"
            f"level bias {self.level_bias_db:+.2f} dB; changes in time, slow to fast: {by_band(self.texture_db)} dB\n"
            f"sound against its picture (mel convergence): {self.convergence_without_db:.1f} dB without the VAE, "
            f"{self.convergence_with_db:.1f} dB with it"
        )


class Heard(Frozen):
    """A FAD, or how much it changed, with its 95 % bounds, None where there are too few clips."""

    value: float
    low: float | None
    high: float | None

    def text(self) -> str:
        """Return the number and its bounds."""
        bounds = "" if self.low is None else f" ({self.low:.4f} to {self.high:.4f})"
        return f"{self.value:.4f}{bounds}"


class Distances(Frozen):
    """FAD of an embedder after the VAE, after the one that it is compared with, and the change from that."""

    embedder: str
    fad: Heard
    fad_against: Heard | None = None
    change: Heard | None = None
