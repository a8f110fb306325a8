package wire

// Setting is one thing that the policy of a network says. Numbers are append-only, and what a number and its values mean
// never changes: a new meaning gets a new number. Settings that this version does not know are kept, passed on and have no
// effect (spec/20-records.md#policy).
type Setting uint16

// The settings.
const (
	SettingBroadcast Setting = 1 // whether members pass broadcast and multicast packets to each other: PolicyNone or PolicyAll
	SettingRelays    Setting = 2 // who may relay for others: PolicyNone, PolicyAll or PolicyGroups
	SettingMask      Setting = 3 // whether datagrams are masked (spec/75-mask.md): PolicyNone or PolicyAll
)

// Values of a [Policy].
const (
	PolicyNone   uint64 = 0 // off, or nobody
	PolicyAll    uint64 = 1 // on, or every member
	PolicyGroups uint64 = 2 // the members that are in at least one of the Groups
)

// Policy states one setting for the whole network. Of the records that have an effect the one with the highest Seq counts
// (spec/21-roster.md#policy).
type Policy struct {
	Seq     uint64   `cbor:"1,keyasint"` // above that of the record it takes the place of
	Setting Setting  `cbor:"2,keyasint"` // 0 is malformed
	Value   uint64   `cbor:"3,keyasint,omitempty"`
	Groups  []string `cbor:"4,keyasint,omitempty"` // of PolicyGroups, ascending
	Time    int64    `cbor:"5,keyasint"`
}
