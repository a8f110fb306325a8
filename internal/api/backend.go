package api

import "context"

// Backend is what the daemon does. All methods are safe for concurrent use and return within a few seconds of the end of
// ctx. A Network field or argument is a name or at least 4 digits of an id; where it may be empty, that means the only
// network there is (CodeAmbiguous when there are several, CodeNoSuchNetwork when there is none). A Member is a name, an
// address or at least 4 digits of an id. Errors for the user are [*Error]; any other is shown as CodeInternal.
//
// The server has checked who calls and the form of each request (spec/60-api.md#requests), not its sense.
type Backend interface {
	// Status describes daemon and networks. It must be cheap: any local user may ask often.
	Status(ctx context.Context) (Status, error)

	// Create founds a network with this node as its root, brings it up and makes a first code (one use, 24 h). When the
	// network is there but no code can be made now, the Invite in the reply is zero. On an error there is no network.
	Create(ctx context.Context, r CreateRequest) (CreateReply, error)

	// Join enters the network of a code and returns when it is up. It calls progress at each stage: from any
	// goroutine, progress never blocks. When ctx ends before StagePending the join is undone and forgotten; after
	// StagePending the daemon keeps the network as StatePending and finishes the join by itself when an admin approves.
	Join(ctx context.Context, r JoinRequest, progress func(Progress)) (Network, error)

	// Up brings one network up, or all that can be. The wish is kept over restarts. The reply is the status after it;
	// an error is returned only when nothing came up that should. With no network at all and none named it does nothing.
	Up(ctx context.Context, r NetworkRequest) (Status, error)

	// Down takes one network down, or all: the interface goes, membership stays. The wish is kept over restarts.
	Down(ctx context.Context, r NetworkRequest) (Status, error)

	// Leave revokes this node itself, tells who is in reach, and forgets the network with its keys. CodeLastAdmin when
	// others would be left without any admin and Force is not set.
	Leave(ctx context.Context, r LeaveRequest) (LeaveReply, error)

	// Rename states another name of this node in a network.
	Rename(ctx context.Context, r RenameRequest) (Network, error)

	// Invite makes a code.
	Invite(ctx context.Context, r InviteRequest) (InviteReply, error)

	// Invites lists invites without their codes.
	Invites(ctx context.Context, network string) (Invites, error)

	// Members lists the roster.
	Members(ctx context.Context, network string) (Members, error)

	// Pending lists who waits for approval.
	Pending(ctx context.Context, network string) (PendingList, error)

	// Approve admits a newcomer that waits, by the name it asked for or 4 digits of its id.
	Approve(ctx context.Context, r MemberRequest) (Member, error)

	// Revoke puts a member or device out for ever.
	Revoke(ctx context.Context, r RevokeRequest) (RevokeReply, error)

	// Admins lists who holds rights.
	Admins(ctx context.Context, network string) (Admins, error)

	// AdminAdd grants rights. The reply has the rights that the member holds now.
	AdminAdd(ctx context.Context, r AdminRequest) (Admin, error)

	// AdminRemove takes all rights from an admin. The reply tells who fell with it.
	AdminRemove(ctx context.Context, r AdminRemoveRequest) (RevokeReply, error)

	// DeviceAdd makes a stock WireGuard client a member that this node serves.
	DeviceAdd(ctx context.Context, r DeviceRequest) (DeviceReply, error)

	// Ping sends one probe through the session and waits at most Timeout: CodeNoAnswer when nothing came back.
	Ping(ctx context.Context, r PingRequest) (PingReply, error)

	// Route tells how a member is reached and why so. It must be cheap: any local user may ask often.
	Route(ctx context.Context, r MemberRequest) (RouteReply, error)

	// Map tells the network's links as this node knows them: CodeNetworkDown when the network is down.
	Map(ctx context.Context, network string) (MapReply, error)

	// Doctor looks at this machine and its way to the others; "" is all networks. It changes nothing, and takes a few seconds
	// at most.
	Doctor(ctx context.Context, network string) (Doctor, error)

	// Policy tells what the admins settled for the network, or the defaults.
	Policy(ctx context.Context, network string) (Policy, error)

	// SetPolicy changes the policy for all members: CodeNoRight without the right. The reply is the policy after it.
	SetPolicy(ctx context.Context, r PolicyRequest) (Policy, error)

	// Stop asks the daemon to end. It returns at once; the daemon ends when it has answered.
	Stop(ctx context.Context) error
}
