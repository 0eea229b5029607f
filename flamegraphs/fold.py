"""Folds the text of `perf script` into stacks and draws them as one self-contained SVG.

A frame's width is its share of the samples, its tooltip says how many; the root is at the bottom. Kernel frames are
drawn in another colour, because for a proxy the question is first of all: ours or the kernel's?
"""

import re
from collections import Counter
from html import escape

WIDTH, ROW, FONT = 1200, 17, 11
# narrower frames are not drawn
SHARE_MIN = 0.0008
STACK_MAX = 120

_FRAME = re.compile(r"^\s+([0-9a-f]+) (.*)$")
_HASH = re.compile(r"::h[0-9a-f]{16}$")
_KERNEL_TEXT = 1 << 63


def fold(text):
    """Counts stacks: tuples of (symbol, is it the kernel's) from the root to the leaf."""
    stacks = Counter()
    frames, command = [], None
    for line in [*text.splitlines(), ""]:
        found = _FRAME.match(line)
        if found:
            frames.append((_name(found[2]), int(found[1], 16) >= _KERNEL_TEXT))
        elif not line.strip():
            if frames:
                stacks[((command, False), *reversed(frames[:STACK_MAX]))] += 1
            frames = []
        else:
            command = line.strip()
    return stacks


def _name(symbol):
    symbol = _HASH.sub("", symbol.strip())
    if symbol.startswith("_R"):
        # Rust's v0 mangling: the identifiers alone say enough
        parts, at = [], 2
        while found := re.compile(r"(\d+)_?").search(symbol, at):
            length = int(found[1])
            word = symbol[found.end() : found.end() + length]
            if length and len(word) == length and re.fullmatch(r"\w+", word):
                parts.append(word)
                at = found.end() + length
            else:
                at = found.end()
        symbol = "::".join(parts) or symbol
    return re.sub(r"\+0x[0-9a-f]+$", "", symbol)


def summary(stacks, count=15):
    """The frames with the most samples of their own, and the kernel's share."""
    total = sum(stacks.values())
    own, kernel = Counter(), 0
    for stack, samples in stacks.items():
        own[stack[-1][0]] += samples
        kernel += samples if stack[-1][1] else 0
    lines = [f"{total} samples, {100 * kernel / total:.0f} % in the kernel; most samples of their own:"]
    lines += [f"{100 * samples / total:6.1f} %  {name}" for name, samples in own.most_common(count)]
    return "\n".join(lines)


class _Node:
    def __init__(self):
        self.samples = 0
        self.children = {}


def _tree(stacks):
    root = _Node()
    for stack, samples in stacks.items():
        node = root
        node.samples += samples
        for frame in stack:
            node = node.children.setdefault(frame, _Node())
            node.samples += samples
    return root


def _depth(node, total):
    wide = [child for child in node.children.values() if child.samples >= SHARE_MIN * total]
    return 1 + max((_depth(child, total) for child in wide), default=0)


def draw(stacks, title):
    """The SVG as text."""
    root = _tree(stacks)
    total = root.samples
    height = (_depth(root, total) + 2) * ROW + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"'
        f' font-family="monospace" font-size="{FONT}">',
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        f'<text x="8" y="20" font-size="14">{escape(title)}</text>',
    ]
    _draw_children(parts, root, 0.0, 0, total, height - 10)
    return "\n".join([*parts, "</svg>\n"])


def _draw_children(parts, node, left, level, total, bottom):
    # siblings in the order of their names, so that two graphs can be compared
    for (name, kernel), child in sorted(node.children.items()):
        width = child.samples / total * WIDTH
        if child.samples >= SHARE_MIN * total:
            _draw_frame(parts, name, kernel, child.samples, left, width, bottom - (level + 1) * ROW, total)
            _draw_children(parts, child, left, level + 1, total, bottom)
        left += width


def _draw_frame(parts, name, kernel, samples, left, width, top, total):
    tooltip = escape(f"{name}: {samples} samples, {100 * samples / total:.2f} %")
    letters = int((width - 6) / (FONT * 0.6))
    text = ""
    if letters >= 3:
        shown = name if len(name) <= letters else ".." + name[-(letters - 2) :]
        text = f'<text x="{left + 3:.1f}" y="{top + 12}">{escape(shown)}</text>'
    parts.append(
        f'<g><title>{tooltip}</title><rect x="{left:.1f}" y="{top}" width="{max(width - 0.5, 0.3):.1f}"'
        f' height="{ROW - 1}" rx="2" fill="{_colour(name, kernel)}"/>{text}</g>'
    )


def _colour(name, kernel):
    shade = sum(name.encode()) % 40
    if kernel:
        return f"rgb({120 + shade},{170 + shade},220)"
    if "corelane" in name:
        return f"rgb(240,{110 + shade},70)"
    return f"rgb(235,{185 + shade},90)"
