"""Layout of the quality report: A4 upright when printed, no other file needed."""

from __future__ import annotations

from string import Template

__all__ = ["PAGE"]

PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
@page { size: A4; margin: 10mm 11mm; }
* { box-sizing: border-box; }
body { font: 10px/1.35 "Helvetica Neue", Arial, sans-serif; color: #1b2126; background: #fff;
  max-width: 188mm; margin: 6mm auto; -webkit-print-color-adjust: exact;
  print-color-adjust: exact; }
@media print { body { margin: 0 auto; zoom: 0.9; max-width: 208mm; } }
h1 { font-size: 17px; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 11px; margin: 9px 0 3px; padding-top: 3px; border-top: 1px solid #b9c4cc; }
p { margin: 2px 0; }
.facts { color: #4c5a64; }
.summary { font-size: 11px; margin: 5px 0; }
figure { margin: 0; }
figcaption { color: #4c5a64; font-size: 9px; margin-top: 2px; }
figcaption b { color: #1b2126; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 10px; }
.pair img { width: 100%; max-height: 62mm; object-fit: contain; object-position: left top; }
.grids { display: flex; flex-wrap: wrap; gap: 8px 12px; }
.grid { width: 28mm; }
.grid img { width: 28mm; max-height: 28mm; object-fit: contain; object-position: left top;
  image-rendering: pixelated; }
.scale { display: flex; align-items: center; gap: 5px; color: #4c5a64; font-size: 9px; }
.scale img { width: 36mm; height: 7px; }
.key { display: inline-block; width: 9px; height: 9px; border: 2px solid rgb(213, 60, 40); }
table { border-collapse: collapse; }
td, th { padding: 1px 5px 1px 0; text-align: right; font-weight: normal; vertical-align: top; }
tr:first-child th { color: #4c5a64; vertical-align: bottom; }
th:first-child { text-align: left; }
.worst { width: 100%; font-size: 9px; }
.worst td, .worst th { vertical-align: middle; }
.worst td:nth-child(3), .worst th:nth-child(3), .worst td:last-child, .worst th:last-child
  { text-align: left; overflow-wrap: anywhere; }
.thumbs { text-align: left; white-space: nowrap; }
.thumbs img { width: 9mm; height: 9mm; object-fit: cover; margin-right: 2px; }
.columns { display: grid; grid-template-columns: 62mm 1fr; gap: 12px; }
.origin td, .origin th { text-align: left; overflow-wrap: anywhere; }
.origin th { color: #4c5a64; white-space: nowrap; }
section, tr, figure { break-inside: avoid; }
footer { margin-top: 6px; color: #4c5a64; font-size: 9px; }
</style>
</head>
<body>
<header><h1>$title</h1><p class="facts">$facts</p></header>
<p class="summary">$summary</p>
$notes
<div class="pair">
<figure><img src="$raw" alt="raw"><figcaption><b>Raw</b> $raw_range</figcaption></figure>
<figure><img src="$corrected" alt="corrected">
<figcaption><b>Corrected</b> transmission $corrected_range</figcaption></figure>
</div>
<section><h2>Flags, tile by tile</h2>
<div class="grids">$grids</div>
<p class="scale">0 <img src="$legend" alt="scale"> twice the threshold
&nbsp; <span class="key"></span> flagged &nbsp; grey: cannot be told</p></section>
<section><h2>Look at these first</h2><table class="worst">$worst</table></section>
<div class="columns">
<section><h2>Figures over the tiles</h2><table>
<tr><th></th><th>5 %</th><th>median</th><th>95 %</th></tr>$figures</table></section>
<section><h2>Provenance</h2><table class="origin">$provenance</table></section>
</div>
<footer>Made by txm-bgcorr quality, $made. Flags point to tiles to look at; a tile without one
can be wrong all the same.</footer>
</body>
</html>
""")
