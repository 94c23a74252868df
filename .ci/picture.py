"""Draw the README's picture: the second half of ``sidecar demo``, from a real run, as an SVG without foreign parts."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

PICTURE: Final = Path(__file__).parents[1] / "docs" / "demo.svg"
FIRST: Final = " act 2: the same agents"
_THEME: Final = TerminalTheme(
    (250, 250, 248),
    (40, 44, 52),
    [
        (40, 44, 52),
        (200, 40, 40),
        (20, 130, 60),
        (150, 110, 0),
        (30, 80, 170),
        (130, 60, 150),
        (0, 120, 130),
        (90, 90, 90),
    ],
)
# rich's own format without its window buttons, and without the fonts that it loads from elsewhere
_FORMAT: Final = """\
<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg" role="img" aria-label="Output of make demo">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: {char_height}px; line-height: {line_height}px; }}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/></clipPath>
{lines}</defs>
<rect fill="#fafaf8" stroke="#d0d0c8" x="1" y="1" width="{width}" height="{height}" rx="6"/>
<g transform="translate({terminal_x}, 16)" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g></g></svg>
"""


def main() -> int:
    """Run the demo and write the picture. Fails where the demo does."""
    program = Path(sys.executable).with_name("sidecar")
    told = subprocess.run([program, "demo"], capture_output=True, text=True, check=True).stdout.splitlines()
    begin = next(number for number, line in enumerate(told) if line.startswith(FIRST))
    end = next(number for number, line in enumerate(told) if line.startswith("everything held"))
    console = Console(record=True, width=80, file=io.StringIO(), highlight=False)
    for line in told[begin:end]:
        text = Text(line)
        if line.startswith(" ") and line.endswith(" "):
            text.stylize("bold reverse")
        text.highlight_regex("✓", "green")
        console.print(text)
    PICTURE.write_text(
        console.export_svg(theme=_THEME, code_format=_FORMAT, unique_id="demo", title=""), encoding="utf-8"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
