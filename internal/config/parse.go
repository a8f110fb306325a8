package config

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// maxFile bounds the bytes that Parse takes: a config is a page, not a book.
const maxFile = 1 << 20

// Parse reads a config file. Keys left out have their defaults, unknown keys are faults, and the error joins all
// faults in the order of their lines; each is a *[Fault]. An error in the TOML itself hides what follows it.
func Parse(data []byte) (Config, error) {
	if len(data) > maxFile {
		return Config{}, &Fault{Text: fmt.Sprintf("larger than %d bytes: not a config file", maxFile)}
	}
	var root map[string]any
	if err := toml.Unmarshal(data, &root); err != nil {
		return Config{}, syntaxFault(err)
	}
	p := parser{lines: keyLines(data), config: Defaults()}
	p.root(root)
	p.check()
	if len(p.faults) == 0 {
		return p.config, nil
	}
	slices.SortStableFunc(p.faults, func(a, b *Fault) int { return a.Line - b.Line })
	errs := make([]error, len(p.faults))
	for i, f := range p.faults {
		errs[i] = f
	}
	return Config{}, errors.Join(errs...)
}

func syntaxFault(err error) *Fault {
	if e, ok := errors.AsType[*toml.DecodeError](err); ok {
		line, _ := e.Position()
		return &Fault{Line: line, Text: strings.TrimPrefix(e.Error(), "toml: ")}
	}
	return &Fault{Text: err.Error()}
}

// parser turns TOML values into a Config and notes what is wrong on the way.
type parser struct {
	lines  map[string]int // keyText of a path -> line where it first stands
	config Config
	faults []*Fault
}

func (p *parser) fault(path []string, format string, args ...any) {
	p.faults = append(p.faults, &Fault{Line: p.lines[keyText(path)], Key: keyText(path), Text: fmt.Sprintf(format, args...)})
}

// check adds the faults of values to those of the text, but one fault a key is enough.
func (p *parser) check() {
	told := map[string]bool{}
	for _, f := range p.faults {
		told[f.Key] = true
	}
	for _, f := range p.config.faults() {
		if !told[f.Key] {
			f.Line = p.lines[f.Key]
			p.faults = append(p.faults, f)
		}
	}
}

// field reads the value of one key.
type field struct {
	name string
	read func(path []string, v any)
}

// table reads the table v with the given fields and faults everything else in it.
func (p *parser) table(path []string, v any, fields ...field) {
	t, ok := v.(map[string]any)
	if !ok {
		p.fault(path, "%s is not a table", show(v))
		return
	}
	for _, name := range slices.Sorted(maps.Keys(t)) {
		full := append(slices.Clip(path), name)
		i := slices.IndexFunc(fields, func(f field) bool { return f.name == name })
		if i < 0 {
			p.fault(full, "unknown key; known here: %s", fieldNames(fields))
			continue
		}
		fields[i].read(full, t[name])
	}
}

func fieldNames(fields []field) string {
	var names []string
	for _, f := range fields {
		names = append(names, f.name)
	}
	return strings.Join(names, ", ")
}

func (p *parser) root(root map[string]any) {
	p.table(nil, root, field{"daemon", p.daemon}, field{"network", p.networks})
}

func (p *parser) daemon(path []string, v any) {
	d := &p.config.Daemon
	p.table(path, v,
		field{"port", func(path []string, v any) {
			if n, ok := p.integer(path, v); ok {
				if n < 0 || n > math.MaxUint16 {
					p.fault(path, "%d is not a UDP port (1 to 65535, or 0 for any free one)", n)
					return
				}
				d.Port = uint16(n)
			}
		}},
		field{"log_level", func(path []string, v any) {
			if s, ok := p.text(path, v); ok {
				level, known := levels[s]
				if !known {
					p.fault(path, "%q is not %s", s, levelWords)
					return
				}
				d.LogLevel = level
			}
		}},
		field{"group", func(path []string, v any) {
			if s, ok := p.text(path, v); ok {
				d.Group = s
			}
		}},
		field{"dht", func(path []string, v any) {
			switch b, ok := v.(bool); {
			case ok:
				d.DHT, d.DHTPeers = b, false
			case v == "full":
				d.DHT, d.DHTPeers = true, true
			default:
				p.fault(path, "%s is neither true, false nor \"full\"", show(v))
			}
		}},
		field{"dht_bootstrap", func(path []string, v any) {
			if s, ok := p.text(path, v); ok {
				d.DHTBootstrap = s
			}
		}},
		field{"lan", func(path []string, v any) { p.boolean(path, v, &d.LAN) }},
		field{"port_mapping", func(path []string, v any) { p.boolean(path, v, &d.PortMapping) }},
		field{"port_search", func(path []string, v any) { p.boolean(path, v, &d.PortSearch) }},
		field{"stun", func(path []string, v any) {
			if s, ok := p.text(path, v); ok {
				d.STUN = s
			}
		}},
		field{"tls_port", func(path []string, v any) {
			if n, ok := p.integer(path, v); ok {
				if n < 0 || n > math.MaxUint16 {
					p.fault(path, "%d is not a TCP port (1 to 65535, or 0 for none)", n)
					return
				}
				d.TLSPort = uint16(n)
			}
		}},
		field{"tls_urls", func(path []string, v any) { p.list(path, v, &d.TLSURLs) }},
		field{"proxy", func(path []string, v any) {
			if s, ok := p.text(path, v); ok {
				d.Proxy = s
			}
		}})
}

func (p *parser) networks(path []string, v any) {
	t, ok := v.(map[string]any)
	if !ok {
		p.fault(path, "%s is not a table: write [network.\"NAME\"]", show(v))
		return
	}
	p.config.Networks = make(map[string]Network, len(t))
	for _, name := range slices.Sorted(maps.Keys(t)) {
		n := defaultNetwork()
		p.table(append(slices.Clip(path), name), t[name],
			field{"interface", func(path []string, v any) {
				if s, ok := p.text(path, v); ok {
					n.Interface = s
				}
			}},
			field{"mtu", func(path []string, v any) {
				if i, ok := p.integer(path, v); ok {
					if text := checkMTU(i); text != "" {
						p.fault(path, "%s", text)
						return
					}
					n.MTU = int(i)
				}
			}},
			field{"transit", func(path []string, v any) {
				if s, ok := p.text(path, v); ok {
					n.Transit = Transit(s)
				}
			}},
			field{"metered", func(path []string, v any) {
				if s, ok := p.text(path, v); ok {
					n.Metered = Metered(s)
				}
			}},
			field{"relay_rate", func(path []string, v any) { p.rate(path, v, &n.RelayRate) }},
			field{"detours", func(path []string, v any) { p.boolean(path, v, &n.Detours) }},
			field{"multipath", func(path []string, v any) {
				if s, ok := p.text(path, v); ok {
					n.Multipath = Multipath(s)
				}
			}},
			field{"broadcast", func(path []string, v any) { p.boolean(path, v, &n.Broadcast) }},
			field{"peer", func(path []string, v any) { p.list(path, v, &n.Peer) }})
		p.config.Networks[name] = n
	}
}

func (p *parser) integer(path []string, v any) (int64, bool) {
	n, ok := v.(int64)
	if !ok {
		p.fault(path, "%s is not a whole number", show(v))
	}
	return n, ok
}

func (p *parser) text(path []string, v any) (string, bool) {
	s, ok := v.(string)
	if !ok {
		p.fault(path, "%s is not text in quotes", show(v))
	}
	return s, ok
}

// list reads a list of texts without spaces, or one text, and puts spaces between.
func (p *parser) list(path []string, v any, to *string) {
	all, ok := v.([]any)
	if !ok {
		all = []any{v}
	}
	var out []string
	for _, v := range all {
		s, ok := v.(string)
		if !ok {
			p.fault(path, "%s is not text in quotes", show(v))
			return
		}
		out = append(out, strings.Fields(s)...)
	}
	*to = strings.Join(out, " ")
}

func (p *parser) boolean(path []string, v any, to *bool) {
	b, ok := v.(bool)
	if !ok {
		p.fault(path, "%s is neither true nor false", show(v))
		return
	}
	*to = b
}

func (p *parser) rate(path []string, v any, to *int64) {
	switch v := v.(type) {
	case int64:
		*to = v
	case string:
		rate, ok := readRate(v)
		if !ok {
			p.fault(path, "%q is not a rate: write bits a second with a unit, such as \"20 Mbit/s\"", v)
			return
		}
		*to = rate
	default:
		p.fault(path, "%s is neither a whole number of bits a second nor text such as \"20 Mbit/s\"", show(v))
	}
}

var rateUnits = map[string]float64{"bit/s": 1, "kbit/s": 1e3, "mbit/s": 1e6, "gbit/s": 1e9}

// readRate reads a number and a unit, with or without a space between them, in bits a second. Units in bytes are refused:
// MB and Mb are confused too easily.
func readRate(text string) (rate int64, ok bool) {
	digits := strings.TrimLeft(text, "0123456789.")
	number := text[:len(text)-len(digits)]
	unit, known := rateUnits[strings.ToLower(strings.TrimPrefix(digits, " "))]
	f, err := strconv.ParseFloat(number, 64)
	if !known || err != nil || f*unit > math.MaxInt64/2 {
		return 0, false
	}
	return int64(math.Round(f * unit)), true
}

// show prints a value of the wrong type.
func show(v any) string {
	switch v := v.(type) {
	case string:
		return strconv.Quote(v)
	case map[string]any:
		return "a table"
	case []any:
		return "a list"
	}
	return fmt.Sprint(v)
}

// keyText writes a path as TOML would, with quotes where a part needs them.
func keyText(path []string) string {
	parts := make([]string, len(path))
	for i, s := range path {
		parts[i] = s
		bare := func(r rune) bool {
			return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_'
		}
		if s == "" || strings.ContainsFunc(s, func(r rune) bool { return !bare(r) }) {
			parts[i] = strconv.Quote(s)
		}
	}
	return strings.Join(parts, ".")
}
