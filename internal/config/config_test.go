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
		if c.Daemon != Defaults().Daemon || c.Network("any") != (Network{MTU: 1420, Transit: TransitAuto, Metered: MeteredAuto, Detours: true, Multipath: MultipathBackup, Broadcast: true}) {
			t.Errorf("%q: %+v", text, c)
		}
	}
	if err := Defaults().Validate(); err != nil {
		t.Error(err)
	}
}

func TestEveryKey(t *testing.T) {
	c, err := Parse([]byte("daemon = { port = 51820, log_level = \"debug\", group = \"\", dht = false, lan = false, tls_port = 443, tls_urls = [\"wss://vpn.example/a\", \"tls://192.0.2.1:8443\"], proxy = \"socks5://p:1080\", stun = \"s.example:3478\", port_search = true, " +
		"dht_bootstrap = \"a.example:6881 192.0.2.1:6881\" }\n" +
		"[network.\"my home\"]\ninterface = \"home0\"\nmtu = 1280\ntransit = \"off\"\nmetered = \"yes\"\nrelay_rate = \"2.5 Mbit/s\"\n" +
		"detours = false\nmultipath = \"balance\"\nbroadcast = false\npeer = [\"ben@192.0.2.1:7\", \"a.example:8\"]\n[network.lab]\nmtu = 1400\n"))
	lab := Defaults().Network("lab")
	lab.MTU = 1400
	want := Config{
		Daemon:   Daemon{Port: 51820, LogLevel: slog.LevelDebug, DHTBootstrap: "a.example:6881 192.0.2.1:6881", PortMapping: true, TLSPort: 443, TLSURLs: "wss://vpn.example/a tls://192.0.2.1:8443", Proxy: "socks5://p:1080", STUN: "s.example:3478", PortSearch: true},
		Networks: map[string]Network{"my home": {Interface: "home0", MTU: 1280, Transit: TransitOff, Metered: MeteredYes, RelayRate: 2_500_000, Multipath: MultipathBalance, Peer: "ben@192.0.2.1:7 a.example:8"}, "lab": lab},
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
	for _, name := range []string{"port", "log_level", "group", "dht", "dht_bootstrap", "lan", "port_mapping", "port_search", "stun", "tls_port", "tls_urls", "proxy", "interface", "mtu", "transit", "metered", "relay_rate", "detours", "multipath", "broadcast", "peer"} {
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
line 5: network.home.colour: unknown key; known here: interface, mtu, transit, metered, relay_rate, detours, multipath, broadcast, peer
line 7: daemon.port: 70000 is not a UDP port (1 to 65535, or 0 for any free one)
line 8: daemon.prot: unknown key; known here: port, log_level, group, dht, dht_bootstrap, lan, port_mapping, port_search, stun, tls_port, tls_urls, proxy
line 9: daemon.log_level: "loud" is not one of "debug", "info", "warn", "error"
line 10: daemon.group: "no such" is not the name of a group
line 11: demon: unknown key; known here: daemon, network`},
		{"wrong types", "daemon = 3\nnetwork = [1]\n", "line 1: daemon: 3 is not a table\nline 2: network: a list is not a table: write [network.\"NAME\"]"},
		{"wrong types of values", "[daemon]\nport = \"7\"\nlog_level = 3\ngroup = true\n", "line 2: daemon.port: \"7\" is not a whole number\nline 3: daemon.log_level: 3 is not text in quotes\nline 4: daemon.group: true is not text in quotes"},
		{"negative port", "[daemon]\nport = -1", "line 2: daemon.port: -1 is not a UDP port (1 to 65535, or 0 for any free one)"},
		{"inline and dotted", "daemon.port = 1.5\nnetwork.\"a b\" = { mtu = 1,\n interface = \"a/b\" }\n", "line 1: daemon.port: 1.5 is not a whole number\nline 2: network.\"a b\".mtu: 1 is not between 1280 and 1420\nline 3: network.\"a b\".interface: \"a/b\" cannot be the name of an interface"},
		{"one interface twice", "[network.a]\ninterface = \"w\"\n[network.b]\ninterface = \"w\"", "line 4: network.b.interface: \"w\" is already the interface of network \"a\""},
		{"network without a name", "[network.\"\"]\nmtu = 1300", "line 1: network.\"\": a network has a name"},
		{"words", "[network.a]\ntransit = \"maybe\"\nmultipath = \"\"\nmetered = \"on\"\n", "line 2: network.a.transit: \"maybe\" is not one of \"auto\", \"on\", \"off\"\nline 3: network.a.multipath: \"\" is not one of \"backup\", \"balance\", \"redundant\"\nline 4: network.a.metered: \"on\" is not one of \"auto\", \"yes\", \"no\""},
		{"wrong types of the mesh", "[network.a]\ntransit = true\nrelay_rate = 1.5\ndetours = \"off\"\nbroadcast = 1", "line 2: network.a.transit: true is not text in quotes\nline 3: network.a.relay_rate: 1.5 is neither a whole number of bits a second nor text such as \"20 Mbit/s\"\nline 4: network.a.detours: \"off\" is neither true nor false\nline 5: network.a.broadcast: 1 is neither true nor false"},
		{"a rate in bytes", "[network.a]\nrelay_rate = \"20 MB/s\"", "line 2: network.a.relay_rate: \"20 MB/s\" is not a rate: write bits a second with a unit, such as \"20 Mbit/s\""},
		{"a rate that meant megabits", "[network.a]\nrelay_rate = 20", "line 2: network.a.relay_rate: 20 bit/s is not between 64 kbit/s and 1000 Gbit/s, or 0 for no limit"},
		{"a negative rate", "[network.a]\nrelay_rate = -64000", "line 2: network.a.relay_rate: -64000 bit/s is not between 64 kbit/s and 1000 Gbit/s, or 0 for no limit"},
		{"peers", "[network.a]\npeer = [\"ben\"]", "line 2: network.a.peer: \"ben\" is neither host:port nor member@host:port"},
		{"peer of nobody", "[network.a]\npeer = [\"@a:1\"]", "line 2: network.a.peer: \"@a:1\" is neither host:port nor member@host:port"},
		{"peer nowhere", "[network.a]\npeer = \"ben@\"", "line 2: network.a.peer: \"ben@\" is neither host:port nor member@host:port"},
		{"server of STUN without a port", "[daemon]\nstun = \"foo\"", "line 2: daemon.stun: \"foo\" is not host:port"},
		{"too much DHT", "[daemon]\ndht = \"fulll\"", "line 2: daemon.dht: \"fulll\" is neither true, false nor \"full\""},
		{"too many peers", "[network.a]\npeer = \"" + strings.Repeat("a:1 ", 17) + "\"", "line 2: network.a.peer: more than 16 addresses"},
		{"URLs of nothing", "[daemon]\ntls_urls = \"wss://a/b\"", "line 2: daemon.tls_urls: they need a tls_port to which they lead"},
		{"URLs", "[daemon]\ntls_urls = [\"https://a/b\"]", "line 2: daemon.tls_urls: \"https://a/b\" is not a URL such as wss://host/path or tls://host:port"},
		{"URL with a path that it cannot have", "[daemon]\ntls_urls = \"tls://a/b\"", "line 2: daemon.tls_urls: \"tls://a/b\" is not a URL such as wss://host/path or tls://host:port"},
		{"URLs that are none", "[daemon]\ntls_urls = [1]", "line 2: daemon.tls_urls: 1 is not text in quotes"},
		{"too many URLs", "[daemon]\ntls_urls = \"ws://a ws://b ws://c ws://d ws://e\"", "line 2: daemon.tls_urls: more than 4 URLs"},
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

func TestRelayRate(t *testing.T) {
	for text, want := range map[string]int64{"0": 0, "64000": 64000, `"0 bit/s"`: 0, `"64kbit/s"`: 64000, `"20 Mbit/s"`: 20e6, `"1.5 gbit/s"`: 1.5e9,
		`"0.0640004 Mbit/s"`: 64000, `"1000 Gbit/s"`: 1e12, "1_000_000": 1e6} {
		c, err := Parse([]byte("[network.a]\nrelay_rate = " + text))
		if err != nil || c.Network("a").RelayRate != want {
			t.Errorf("%s: %d, %v", text, c.Network("a").RelayRate, err)
		}
	}
	for _, text := range []string{`""`, `"20"`, `"20 M"`, `"Mbit/s"`, `". Mbit/s"`, `"1.2.3 Mbit/s"`, `"-1 Mbit/s"`, `"1e9 bit/s"`, `"inf bit/s"`, `"nan bit/s"`, `"20  Mbit/s"`,
		`"20 Mbit/s "`, `"20 Mbps"`, `"1001 Gbit/s"`, `"99999999999999999999999 Gbit/s"`, `"1 bit/s"`} {
		if _, err := Parse([]byte("[network.a]\nrelay_rate = " + text)); err == nil {
			t.Errorf("%s is let through", text)
		}
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
	c.Networks = map[string]Network{"a": Defaults().Network("a"), "b": {Interface: "..", MTU: 1300, Transit: TransitOn, Metered: MeteredNo, RelayRate: 1}}
	bad := c.Networks["a"]
	bad.MTU = 0
	c.Networks["a"] = bad
	want := "daemon.log_level: INFO+3 is not one of \"debug\", \"info\", \"warn\", \"error\"\ndaemon.group: \"-x\" is not the name of a group\n" +
		"network.a.mtu: 0 is not between 1280 and 1420\nnetwork.b.interface: \"..\" cannot be the name of an interface\n" +
		"network.b.relay_rate: 1 bit/s is not between 64 kbit/s and 1000 Gbit/s, or 0 for no limit\nnetwork.b.multipath: \"\" is not one of \"backup\", \"balance\", \"redundant\""
	if err := c.Validate(); err == nil || err.Error() != want {
		t.Errorf("got\n%v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("[daemon]\nport = 1\nlog_level = \"warn\"\ngroup = \"x\"\n[network.\"a b\"]\ninterface = \"w0\"\nmtu = 1300\n"))
	f.Add([]byte("[network.a]\ntransit = \"on\"\nrelay_rate = \"1.5 Gbit/s\"\ndetours = false\nmultipath = \"redundant\"\nbroadcast = true\n"))
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

func TestTheDHTInClear(t *testing.T) {
	for text, want := range map[string][2]bool{`true`: {true, false}, `false`: {false, false}, `"full"`: {true, true}} {
		c, err := Parse([]byte("daemon.dht = " + text + "\n"))
		if got := [2]bool{c.Daemon.DHT, c.Daemon.DHTPeers}; err != nil || got != want {
			t.Errorf("dht = %s gives %v, %v", text, got, err)
		}
	}
	if _, err := Parse([]byte("daemon.dht = \"half\"\n")); err == nil {
		t.Error("half a DHT was accepted")
	}
}
