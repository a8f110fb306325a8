package wireguard

import "net/netip"

// Effect is something the owner of an engine must do: one of the types below, which are all values.
type Effect interface{ effect() }

// SendHandshake asks to send a handshake message as one datagram.
type SendHandshake struct {
	Peer *Peer          // nil for a cookie reply, which goes to a stranger
	To   netip.AddrPort // zero: wherever the path to the peer leads; else there, it is an answer
	Data []byte         // the receiver of the effect owns it
}

// SendKeepalive asks to send an empty transport message on p.Sending(), and to call p.Sent with data false. Staged
// packets that go out now serve as well.
type SendKeepalive struct{ Peer *Peer }

// KeypairAdded asks to deliver transport messages with the keypair's local index to it.
type KeypairAdded struct{ Keypair *Keypair }

// KeypairRemoved takes KeypairAdded back. The keypair is erased already.
type KeypairRemoved struct{ Keypair *Keypair }

// SessionUp tells that the peer can be sent to: staged packets go out now.
type SessionUp struct {
	Peer  *Peer
	From  netip.AddrPort // source of the authenticated handshake message that made the session
	Rekey bool           // it was up before; only the keys are new
}

// SessionDown tells that the peer can no longer be sent to, or that a handshake with it was given up (a keypair that
// nothing comes back on may then still be there): staged packets should be dropped.
type SessionDown struct{ Peer *Peer }

func (SendHandshake) effect()  {}
func (SendKeepalive) effect()  {}
func (KeypairAdded) effect()   {}
func (KeypairRemoved) effect() {}
func (SessionUp) effect()      {}
func (SessionDown) effect()    {}

// peerOf returns the peer that must be sent something, nil for effects that send nothing or have none.
func peerOf(f Effect) *Peer {
	switch f := f.(type) {
	case SendHandshake:
		return f.Peer
	case SendKeepalive:
		return f.Peer
	}
	return nil
}
