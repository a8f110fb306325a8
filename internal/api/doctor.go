package api

// Values of [Finding.State].
const (
	FindingOK   = "ok"   // as it should be
	FindingInfo = "info" // good to know
	FindingWarn = "warn" // works, but not as well as it could
	FindingBad  = "bad"  // does not work
)

// Doctor is what the daemon found when it looked at this machine and its way to the others (spec/60-api.md#doctor).
type Doctor struct {
	PID      int           `json:"pid"`      // of the daemon
	Findings List[Finding] `json:"findings"` // in a fixed order of names
	Hosts    List[Host]    `json:"hosts"`    // all public hosts that the daemon may ask first on its own account, sorted by name
}

// Finding is one thing that was looked at (spec/60-api.md#finding).
type Finding struct {
	Name   string `json:"name"`   // of what was looked at: see the spec; several findings can have one name
	State  string `json:"state"`  // a Finding constant
	Text   string `json:"text"`   // for people: lower case, no full stop
	Remedy string `json:"remedy"` // what to do about it, likewise; "" = nothing
}

// Host is a public host that no member runs.
type Host struct {
	Host  string `json:"host"`  // "name:port" or "address:port"
	Asked bool   `json:"asked"` // it was looked up to be asked, since the daemon started
}
