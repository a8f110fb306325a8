package api

import "net/netip"

// Relay is what this node carries for others (spec/60-api.md#relay).
type Relay struct {
	Enabled    bool   `json:"enabled"`    // it carries traffic of others
	Overloaded bool   `json:"overloaded"` // it asks the others to go round it for now
	Why        string `json:"why"`        // one sentence when it is not enabled or overloaded, else ""
	Packets    uint64 `json:"packets"`    // passed on since the daemon started
	Bytes      uint64 `json:"bytes"`      // passed on since the daemon started
	Dropped    uint64 `json:"dropped"`    // packets of others that were not passed on: limits, dead next hops
}

// RouteReply is how a member is reached and why so (spec/60-api.md#route).
type RouteReply struct {
	Network string        `json:"network"` // its name
	Name    string        `json:"name"`
	ID      string        `json:"id"`      // 64 hexadecimal digits
	Address netip.Addr    `json:"address"` // the member's first
	Self    bool          `json:"self"`    // it is this node; then nothing below is set
	Device  bool          `json:"device"`  // runs stock WireGuard
	Path    string        `json:"path"`    // PathDirect, PathRelayed or PathNone: that of the way in use
	Why     string        `json:"why"`     // why this way and no other: lower case, no full stop; "" = nothing to say
	Ways    List[Way]     `json:"ways"`    // that in use first, then the others, best first; empty when none is known
	Avoided List[Avoided] `json:"avoided"` // what the choice of relays stays away from now, sorted by name
}

// Values of [Way.State].
const (
	WayUsed     = "used"     // packets go here
	WayAlso     = "also"     // copies go here too: in doubt of the used one, or as the owner wished
	WayAlive    = "alive"    // answers: takes over when the used one fails
	WayUnproven = "unproven" // has not answered yet, or was not asked
	WaySilent   = "silent"   // does not answer
)

// Way is one way to a member: straight to an address, or over relays (spec/60-api.md#way).
type Way struct {
	Path     string         `json:"path"`      // PathDirect or PathRelayed
	State    string         `json:"state"`     // a Way constant
	Why      string         `json:"why"`       // what is to be said of it: lower case, no full stop; or ""
	Endpoint netip.AddrPort `json:"endpoint"`  // "" unless direct
	Hops     List[Hop]      `json:"hops"`      // the relays in order, the member last; direct: the member alone
	RTT      Millis         `json:"rtt_ms"`    // from end to end, smoothed; null until measured
	Jitter   Millis         `json:"jitter_ms"` // of the RTT; null until measured
	Loss     Share          `json:"loss"`      // of the probes from end to end; null until measured
	MTU      int            `json:"mtu"`       // inner bytes; 0 while unknown
	Cost     Millis         `json:"cost_ms"`   // sum of the hops, by the map; null when the map does not know one of them
}

// Hop is one step of a [Way]: the link by which it comes to a node, and the node.
type Hop struct {
	Name string `json:"name"`
	ID   string `json:"id"`      // 64 hexadecimal digits
	RTT  Millis `json:"rtt_ms"`  // of the link, as this node measured it; null: it is not a link of this node
	Cost Millis `json:"cost_ms"` // of the link and of relaying by who sends on it, by the map; null = no link on the map
}

// Avoided is a relay, or one link of it, that routes stay away from for a while.
type Avoided struct {
	Name  string `json:"name"`
	ID    string `json:"id"`    // 64 hexadecimal digits
	To    string `json:"to"`    // name of the other end when it is about one link; "" = the relay itself
	Why   string `json:"why"`   // lower case, no full stop
	Until Time   `json:"until"` // null = until it has proved itself
}

// MapReply is the network's links as this node knows them (spec/60-api.md#map).
type MapReply struct {
	Network string        `json:"network"` // its name
	ID      string        `json:"id"`      // 64 hexadecimal digits
	Self    string        `json:"self"`    // name of this node
	Nodes   List[MapNode] `json:"nodes"`   // all members, this node and devices included, sorted by name
	Links   List[MapLink] `json:"links"`   // each once, sorted by A, then B
}

// MapNode is a member on the map (spec/60-api.md#map-node).
type MapNode struct {
	Name       string       `json:"name"`
	ID         string       `json:"id"` // 64 hexadecimal digits
	Address    netip.Addr   `json:"address"`
	Self       bool         `json:"self"`
	Device     bool         `json:"device"`     // runs stock WireGuard: it has no links of its own
	Gateways   List[string] `json:"gateways"`   // names of the members that serve the device
	Known      bool         `json:"known"`      // it has told its links
	Leaf       bool         `json:"leaf"`       // carries nothing for others
	Overloaded bool         `json:"overloaded"` // carries as much as it can
	Anchor     bool         `json:"anchor"`     // is reached from outside without help
	Avoided    bool         `json:"avoided"`    // routes through it are avoided for now: see [RouteReply.Avoided]
	Path       string       `json:"path"`       // how this node reaches it: PathDirect, PathRelayed, PathNone; "" for itself
	Via        List[string] `json:"via"`        // names of the relays in order; empty unless relayed
	RTT        Millis       `json:"rtt_ms"`     // from this node, smoothed; null while unknown
}

// MapLink is a link on the map (spec/60-api.md#map-link). Routes use only those that both ends tell of.
type MapLink struct {
	A       string `json:"a"`       // name of one end, the lesser
	B       string `json:"b"`       // name of the other end
	Cost    Millis `json:"cost_ms"` // the greater claim of the two
	RTT     Millis `json:"rtt_ms"`  // as measured, when this node is an end; else null
	Loss    Share  `json:"loss"`    // likewise
	TwoWay  bool   `json:"two_way"` // both ends tell of it
	Avoided bool   `json:"avoided"` // a relay reported it dead, and routes avoid it for now
}

// Policy is what the admins settled for the whole network (spec/60-api.md#policy).
type Policy struct {
	Network  string              `json:"network"`  // its name
	Settings List[PolicySetting] `json:"settings"` // all that the daemon knows, in a fixed order
}

// PolicySetting is one setting of a [Policy].
type PolicySetting struct {
	Name  string `json:"name"`  // "broadcast" or "relays"
	Value string `json:"value"` // "on" or "off"; of relays "all", "none" or groups: "group:servers,group:office"
	By    string `json:"by"`    // name of the admin who settled it; "" = nobody, it is the default
	Since Time   `json:"since"` // null = nobody settled it
}

// PolicyRequest changes one setting for all members.
type PolicyRequest struct {
	Network string `json:"network"` // name or id prefix; "" = the only one
	Setting string `json:"setting"` // a [PolicySetting.Name]
	Value   string `json:"value"`   // as in [PolicySetting.Value], at most MaxSetting bytes
}

// MaxSetting is the limit of [PolicyRequest.Value] in bytes.
const MaxSetting = 1000
