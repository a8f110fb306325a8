package config

import (
	"slices"

	"github.com/pelletier/go-toml/v2/unstable"
)

// keyLines finds on which line each key and table of a valid TOML text first stands, by keyText of its path.
// The decoder does not tell, but for its own errors; a key that is not found has line 0, and no more is lost.
func keyLines(data []byte) map[string]int {
	l := liner{lines: map[string]int{}}
	l.parser.Reset(data)
	var table []string
	for l.parser.NextExpression() {
		switch e := l.parser.Expression(); e.Kind {
		case unstable.Table, unstable.ArrayTable:
			table = l.key(nil, e)
		case unstable.KeyValue:
			l.keyValue(table, e)
		}
	}
	return l.lines
}

type liner struct {
	parser unstable.Parser
	lines  map[string]int
}

// key notes the dotted key of e below path, and every part of it, and returns its whole path.
func (l *liner) key(path []string, e *unstable.Node) []string {
	for it := e.Key(); it.Next(); {
		n := it.Node()
		path = append(slices.Clip(path), string(n.Data))
		if text := keyText(path); l.lines[text] == 0 {
			l.lines[text] = l.parser.Shape(n.Raw).Start.Line
		}
	}
	return path
}

// keyValue notes the keys of e and of inline tables in its value.
func (l *liner) keyValue(path []string, e *unstable.Node) {
	path = l.key(path, e)
	if v := e.Value(); v.Kind == unstable.InlineTable {
		for it := v.Children(); it.Next(); {
			l.keyValue(path, it.Node())
		}
	}
}
