"""How pages look: light and dark, wide and narrow, on paper."""

# What text and what lines are drawn in, on a light and on a dark page.
LIGHT = {
    "paper": "#f6f6f4", "card": "#ffffff", "ink": "#1c1e22", "soft": "#5f646d", "line": "#dcdde0",
    "first": "#2f66c8", "second": "#b85f10", "third": "#1d7d60", "fourth": "#8a4fb0",
    "fifth": "#b03a63", "sixth": "#5b6b1c",
    "good": "#1a7549", "bad": "#b23628", "open": "#7c5a00",
}  # fmt: skip
DARK = {
    "paper": "#141518", "card": "#1c1e22", "ink": "#e6e7e9", "soft": "#a0a5ae", "line": "#373a41",
    "first": "#7fa8f5", "second": "#eea55c", "third": "#58c3a0", "fourth": "#c59be6",
    "fifth": "#ee8fae", "sixth": "#bac46a",
    "good": "#5bc38d", "bad": "#ee8377", "open": "#d9b24c",
}  # fmt: skip


def _variables(colours: dict[str, str]) -> str:
    return " ".join(f"--{name}: {value};" for name, value in colours.items())


CSS = f"""
:root {{ color-scheme: light dark; {_variables(LIGHT)} }}
@media (prefers-color-scheme: dark) {{ :root {{ {_variables(DARK)} }} }}
"""
CSS += """
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--paper); color: var(--ink); -webkit-text-size-adjust: 100%;
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
}
main { max-width: 1060px; margin: 0 auto; padding: 44px 24px 64px; }
h1 { font-size: 29px; line-height: 1.2; letter-spacing: -0.015em; margin: 0 0 10px; }
h2 { font-size: 19px; letter-spacing: -0.01em; margin: 40px 0 14px; }
h3 { font-size: 15px; margin: 0 0 8px; }
p { margin: 0 0 12px; }
a { color: var(--first); }
.lead { font-size: 17px; max-width: 46em; }
.soft, figcaption, .facts, footer { color: var(--soft); }
.facts { font-size: 13.5px; }
.facts span { display: inline-block; }
.facts span:not(:last-child)::after { content: "\\00b7"; margin: 0 8px; }
table + .facts { margin-top: 14px; } table + .charts { margin-top: 20px; }
.better { color: var(--soft); font-weight: 600; }
.card {
  background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 18px 20px; margin: 0 0 16px; overflow-x: auto;
}
.card > :last-child, .card > div > p:last-child { margin-bottom: 0; }
.narrow { width: fit-content; max-width: 100%; }
pre { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; }
pre, code { font: 13px/1.5 ui-monospace, "SF Mono", Menlo, Consolas, monospace; }

.path { font-size: 17px; margin: 0 0 4px; display: flex; flex-wrap: wrap; gap: 2px 10px; }
.path i { font-style: normal; color: var(--soft); }

table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 5px 0 5px 26px; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
th { font-weight: 600; color: var(--soft); font-size: 13px; vertical-align: bottom; }
tbody th { font-size: 15px; font-weight: 400; color: var(--ink); vertical-align: top; }
tbody tr:last-child > * { border-bottom: 0; }
td { white-space: nowrap; vertical-align: top; }
td.text, th.text { text-align: left; white-space: normal; overflow-wrap: anywhere; min-width: 5em; }
tbody th .soft, td .soft { font-size: 13px; display: block; }
.wide { width: 100%; } .wide tbody th { min-width: 10em; }
.compared tbody tr:last-child > * { color: var(--soft); font-size: 14px; }

figure { margin: 0; min-width: 0; }
figcaption { font-size: 13px; margin: 0 0 4px; display: flex; flex-wrap: wrap; gap: 2px 12px; }
figcaption b { color: var(--ink); font-weight: 600; flex-basis: 100%; }
.key::before {
  content: ""; display: inline-block; width: 14px; height: 0; vertical-align: middle;
  border-top: 3px solid var(--key); margin-right: 5px;
}
.key.dashed::before { border-top-style: dotted; }
.charts {
  display: grid; grid-template-columns: repeat(auto-fill, minmax(min(270px, 100%), 1fr));
  gap: 24px;
}
.charts figure { display: flex; flex-direction: column; justify-content: space-between; }
.charts > div { display: flex; flex-direction: column; } .charts > div > figure { flex: 1; }
.pair { display: flex; flex-wrap: wrap; gap: 20px 32px; }
svg { display: block; width: 100%; height: auto; font-family: inherit; }
svg * { stroke-linejoin: round; }
.images {
  display: grid; gap: 5px; align-items: center; justify-content: start;
  grid-template-columns: max-content repeat(var(--columns), minmax(0, 84px));
}
.images span { font-size: 13px; color: var(--soft); padding-right: 12px; text-align: right; }
.single { display: grid; gap: 14px; grid-template-columns: repeat(auto-fill, minmax(110px, 1fr)); }
.single > div { max-width: 192px; }
.single span { font-size: 13px; color: var(--soft); }
/* A line around each: white pixels would run into a white card, black ones into a dark one. */
.images img, .single img {
  display: block; width: 100%; border-radius: 3px; box-shadow: 0 0 0 1px var(--line);
}
img.small { image-rendering: pixelated; }
.card > figure + figure { margin-top: 26px; }

.strips { display: grid; gap: 8px 20px; align-items: center; margin-top: 6px;
  grid-template-columns: fit-content(17em) minmax(0, 1fr) max-content; }
.strip { display: grid; grid-template-columns: subgrid; grid-column: 1 / -1; align-items: center; }
.strip > .value { font-variant-numeric: tabular-nums; text-align: right; font-size: 14px; }
.strip > .name { overflow-wrap: anywhere; } .strip .soft { font-size: 13px; }
.track, .axis { position: relative; margin: 0 26px; }
.track { height: 34px; }
.track::before {
  content: ""; position: absolute; left: -26px; right: -26px; top: 50%;
  border-top: 1px solid var(--line);
}
.track i { position: absolute; top: 50%; transform: translate(-50%, -50%); }
.track .band { transform: translateY(-50%); height: 12px; border-radius: 3px; opacity: 0.3;
  background: var(--tone, var(--first)); }
.track .interval { transform: translateY(-50%); height: 4px; border-radius: 2px;
  background: var(--tone, var(--first)); }
.track .dot { width: 9px; height: 9px; border-radius: 50%; background: var(--tone, var(--first));
  opacity: 0.85; }
.track .mean { width: 3px; height: 20px; background: var(--ink); border-radius: 1px; }
.track .centre { width: 13px; height: 13px; border-radius: 50%; opacity: 1;
  background: var(--tone, var(--first)); border: 2px solid var(--card); }
.track .zero { width: 1px; height: 100%; background: var(--soft); }
.track .margin { width: 0; height: 100%; border-left: 2px dashed var(--ink); }
.axis { grid-column: 2; height: 22px; font-size: 12px; color: var(--soft); }
.axis span { position: absolute; transform: translateX(-50%); white-space: nowrap; }
.axis span::before {
  content: ""; position: absolute; left: 50%; top: -4px; height: 4px;
  border-left: 1px solid var(--line);
}

.verdict {
  display: inline-block; padding: 1px 10px; border-radius: 999px; font-size: 13px;
  font-weight: 600; color: var(--tone); border: 1px solid var(--tone); white-space: nowrap;
}
.holds { --tone: var(--good); } .contradicted { --tone: var(--bad); }
.not-shown, .smaller-than-asked { --tone: var(--open); }
details { margin: 2px 0; }
details > div { margin: 2px 0 6px 5px; padding-left: 14px; border-left: 1px solid var(--line); }
summary { cursor: pointer; }
summary .soft { font-size: 13px; }
details.card { padding: 0; margin: 0 0 10px; }
details.card > summary { padding: 11px 20px; font-weight: 600; }
details.card > div { border: 0; margin: 0; padding: 2px 20px 18px; }
.tree { font: 13px/1.65 ui-monospace, "SF Mono", Menlo, Consolas, monospace;
  overflow-wrap: anywhere; }
.tree .name { color: var(--soft); }
.missing { border-left: 3px solid var(--open); padding-left: 12px; color: var(--soft); }
footer { margin-top: 40px; font-size: 13px; }

@media (max-width: 640px) {
  main { padding: 26px 14px 44px; }
  h1 { font-size: 24px; }
  .lead, .path { font-size: 16px; }
  .card { padding: 14px; }
  .narrow { width: auto; }
  th, td { padding-left: 14px; }
  /* Every row is a block, every cell a line with its column's name: no column is out of sight. */
  .stack, .stack tbody, .stack tr { display: block; }
  .stack thead { position: absolute; width: 1px; height: 1px; overflow: hidden;
    clip-path: inset(50%); }
  .stack tr + tr { border-top: 1px solid var(--line); margin-top: 10px; padding-top: 10px; }
  .stack tr > * { display: flex; justify-content: space-between; gap: 14px; border: 0;
    padding: 1px 0; white-space: normal; text-align: right; }
  .stack tbody th { display: block; text-align: left; }
  .stack td.text { text-align: right; }
  .stack td.none { display: none; }
  .stack td::before { content: attr(data-label); color: var(--soft); text-align: left;
    overflow-wrap: normal; }
  /* A note below a number has a line of its own. */
  .stack td:has(> .soft) { flex-wrap: wrap; row-gap: 0; }
  .stack td > .soft { flex-basis: 100%; }
  .images { grid-template-columns: repeat(var(--columns), minmax(0, 1fr)); gap: 4px; }
  .images span { grid-column: 1 / -1; text-align: left; }
  .strip { grid-template-columns: minmax(0, 1fr) max-content; }
  .strip > .value { order: 1; align-self: start; }
  .strip > .track { order: 2; grid-column: 1 / -1; }
  .strips > .axis { grid-column: 1; }
  .strips { grid-template-columns: minmax(0, 1fr); }
  details.card > summary { padding: 10px 14px; }
  details.card > div { padding: 2px 14px 14px; }
}
@media print {
  body { background: none; } .card { break-inside: avoid; } details > div { display: block; }
}
"""
