"""Texts that are typed where a value belongs: one a line, and some that are too long for that."""

from __future__ import annotations

NUMBERS = r"""
0
1
-1
2
7
64
012
-012
00
0o17
1:30
1:30.5
0x10
0b11
1_000
08
1e3
1e-3
1.
.5
.inf
-.inf
.nan
1e400
-0.0
2147483647
2147483648
4294967295
4294967296
1e-300
1e-46
1e-38
99999999999999999999
""".strip().splitlines()

TAGGED = r"""
!!bool abc
!!int ''
!!float x
!!map [a]
!!seq {a: 1}
!!set [a]
!!timestamp x
!!binary x
!!omap [a]
!!null x
!!str [a]
!<tag:x> 1
!!python/object/apply:os.system ['true']
""".strip().splitlines()

SHAPES = r"""
[]
{}
[[1]]
[1, 1]
[1, x]
[null]
[1, null]
[5, 05]
{a: 1}
{1: 2}
{[1]: 2}
&a [*a]
&a {b: *a}
*missing
[1
{a: 1
- 1
- - - 1
a: b
? x
<<: 1
""".strip().splitlines()

WORDS = r"""
true
yes
off
null
~
''
2024-01-01
2024-13-01
é
[red]x[/red]
:smile:
a/b
..
.hidden
1 2
1,2
@
%
`
!
x=y
none
all
auto
1,1,1,1
3,12,41,3
0,0,0,0
vgg
resnet
fc
mnist
cifar10
gamma
paper
pooled+running
max
both
float16
plain
"\0"
"\ud800"
"\udcff"
"\x1b[31m"
folder:nowhere
folder:
folder:~nobody/x
folder:/dev/null
folder:/proc/self/fd
""".strip().splitlines()

DIGITS = ["9" * 400, "9" * 5000, "0x" + "f" * 5000, "1" + "0" * 400 + ".5"]
LONG = ["x" * 300, "folder:" + "x" * 300, "[" * 60, "[" * 3000, "{a: " * 3000, "é" * 150]
GRIDS = [f"[{', '.join(map(str, range(1, count)))}]" for count in (30, 300, 3000)]
ALL = [*NUMBERS, *TAGGED, *SHAPES, *WORDS, "", *DIGITS, *LONG, *GRIDS]

FLAG_NUMBERS = ["0", "-1", "1", "x", "", "1e3", "9" * 30, "9" * 400, "0x10", "1.5", "nan", " 2"]
FOLDERS = ["a[red]b", ":smile:", "x" * 300, "/dev/null", "/dev/null/x", "\udcff", "", "a\nb"]
EPOCHS = ["last", "0,1", "-1", "x", "", "9" * 400, "9" * 5000, "0,,1", "\u0661", "99999999"]
