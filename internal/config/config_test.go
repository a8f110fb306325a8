package config

import (
	"errors"
	"log/slog"
	"os"
	"reflect"
	"strings"
	"testing"
)

func TestNothingMeansDefaults(t *testing.T) {
	for _, text := range []string{"", "# only a comment\n", "[daemon]\n", "[network]\n"} {
		c, err := Parse([]byte(text))
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if c.Daemon != Defaults().Daemon || c.Network("any") != (Network{MTU: 1420}) {
			t.Errorf("%q: %+v", text, c)
		}
	}
	if err := Defaults().Validate(); err != nil {
		t.Error(err)
	}
}

func TestEveryKey(t *testing.T) {
	c, err := Parse([]byte("daemon = { port = 51820, log_level = \"debug\", group = \"\" }\n" +
		"[network.\"my home\"]\ninterface = \"home0\"\nmtu = 1280\n[network.lab]\nmtu = 1400\n"))
	want := Config{
		Daemon:   Daemon{Port: 51820, LogLevel: slog.LevelDebug},
		Networks: map[string]Network{"my home": {"home0", 1280}, "lab": {"", 1400}},
	}
	if err != nil || !reflect.DeepEqual(c, want) {
		t.Errorf("%+v, %v", c, err)
	}
	if c.Network("my home").Interface != "home0" || c.Network("other").MTU != 1420 {
		t.Error("a network got the settings of another")
	}
}

func TestExampleFileShowsTheDefaults(t *testing.T) {
	data, err := os.ReadFile("../../docs/warren.toml")
	if err != nil {
		t.Fatal(err)
	}
	c, err := Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	if c.Daemon != Defaults().Daemon || len(c.Networks) != 1 || c.Networks["home"] != Defaults().Network("home") {
		t.Errorf("%+v", c)
	}
	for _, name := range []string{"port", "log_level", "group", "interface", "mtu"} {
		if !strings.Contains(string(data), "\n"+name+" = ") {
			t.Errorf("%s is not shown", name)
		}
	}
}

func TestFaults(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"all at once, in order of lines", `
[network.home]
mtu = 9000
interface = "much-too-long-a-name"
colour = "red"
[daemon]
port = 70000
prot = 7
log_level = "loud"
group = "no such"
[demon]
x = 1
`, `line 3: network.home.mtu: 9000 is not between 1280 and 1420
line 4: network.home.interface: "much-too-long-a-name" is longer than 15 bytes
line 5: network.home.colour: unknown key; known here: interface, mtu
line 7: daemon.port: 70000 is not a UDP port (1 to 65535, or 0 for any free one)
line 8: daemon.prot: unknown key; known here: port, log_level, group
line 9: daemon.log_level: "loud" is not one of "debug", "info", "warn", "error"
line 10: daemon.group: "no such" is not the name of a group
line 11: demon: unknown key; known here: daemon, network`},
		{"wrong types", "daemon = 3\nnetwork = [1]\n", "line 1: daemon: 3 is not a table\nline 2: network: a list is not a table: write [network.\"NAME\"]"},
		{"wrong types of values", "[daemon]\nport = \"7\"\nlog_level = 3\ngroup = true\n", "line 2: daemon.port: \"7\" is not a whole number\nline 3: daemon.log_level: 3 is not text in quotes\nline 4: daemon.group: true is not text in quotes"},
		{"negative port", "[daemon]\nport = -1", "line 2: daemon.port: -1 is not a UDP port (1 to 65535, or 0 for any free one)"},
		{"inline and dotted", "daemon.port = 1.5\nnetwork.\"a b\" = { mtu = 1,\n interface = \"a/b\" }\n", "line 1: daemon.port: 1.5 is not a whole number\nline 2: network.\"a b\".mtu: 1 is not between 1280 and 1420\nline 3: network.\"a b\".interface: \"a/b\" cannot be the name of an interface"},
		{"one interface twice", "[network.a]\ninterface = \"w\"\n[network.b]\ninterface = \"w\"", "line 4: network.b.interface: \"w\" is already the interface of network \"a\""},
		{"network without a name", "[network.\"\"]\nmtu = 1300", "line 1: network.\"\": a network has a name"},
		{"network that is no table", "[network]\nmtu = 1300", "line 2: network.mtu: 1300 is not a table"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse([]byte(tt.text))
			if err == nil || err.Error() != tt.want {
				t.Errorf("got\n%v\nwant\n%s", err, tt.want)
			}
		})
	}
}

func TestSyntaxErrorTellsItsLine(t *testing.T) {
	for text, line := range map[string]int{"[daemon]\nport = \n": 2, "[daemon]\n[daemon]\n": 2, "\n\nport 7": 3, "a = 1\na = 2\n": 2, "x = \"\xff\"": 1} {
		_, err := Parse([]byte(text))
		f, ok := errors.AsType[*Fault](err)
		if !ok || f.Line != line {
			t.Errorf("%q: %v", text, err)
		}
	}
	if _, err := Parse(make([]byte, maxFile+1)); err == nil {
		t.Error("a huge file was read")
	}
}

func TestValidateOfChangedConfig(t *testing.T) {
	c := Defaults()
	c.Daemon.LogLevel = 3
	c.Daemon.Group = "-x"
	c.Networks = map[string]Network{"a": {}, "b": {Interface: "..", MTU: 1300}}
	want := "daemon.log_level: INFO+3 is not one of \"debug\", \"info\", \"warn\", \"error\"\ndaemon.group: \"-x\" is not the name of a group\n" +
		"network.a.mtu: 0 is not between 1280 and 1420\nnetwork.b.interface: \"..\" cannot be the name of an interface"
	if err := c.Validate(); err == nil || err.Error() != want {
		t.Errorf("got\n%v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("[daemon]\nport = 1\nlog_level = \"warn\"\ngroup = \"x\"\n[network.\"a b\"]\ninterface = \"w0\"\nmtu = 1300\n"))
	f.Add([]byte("daemon = {port = 0x10}\nnetwork.a.mtu = 1_300\n"))
	f.Add([]byte("[[network.a]]\nmtu = 1\n[[network.a]]\n"))
	f.Add([]byte("network = [{a = {b = [{c = 1}]}}]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse(data)
		if err == nil {
			err = c.Validate()
			if err != nil {
				t.Errorf("accepted, but %v", err)
			}
			return
		}
		if _, ok := errors.AsType[*Fault](err); !ok {
			t.Errorf("%v is no Fault", err)
		}
		if err.Error() == "" {
			t.Error("a fault without a text")
		}
	})
}
