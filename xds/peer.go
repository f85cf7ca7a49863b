package xds

import (
	"context"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

// peerOf asks the kernel who is at the other end of a unix socket.
func peerOf(c net.Conn) (*unix.Ucred, error) {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return nil, fmt.Errorf("ask who connected: %T is no unix socket", c)
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("ask who connected: %w", err)
	}
	var cred *unix.Ucred
	if failed := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); failed != nil {
		err = failed
	}
	if err != nil {
		return nil, fmt.Errorf("ask who connected: %w", err)
	}
	return cred, nil
}

// byPeer are credentials of gRPC: who the kernel says the other end is. That it may
// connect at all has been checked when it was accepted.
type byPeer struct{}

// peerInfo is what a call's context then says.
type peerInfo struct {
	credentials.CommonAuthInfo
	unix.Ucred
}

// AuthType implements credentials.AuthInfo.
func (peerInfo) AuthType() string { return "peer" }

// ServerHandshake implements credentials.TransportCredentials.
func (byPeer) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	cred, err := peerOf(c)
	if err != nil {
		return nil, nil, err
	}
	return c, peerInfo{credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}, *cred}, nil
}

// ClientHandshake implements credentials.TransportCredentials; nobody dials by these.
func (byPeer) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, fmt.Errorf("dial: %w", os.ErrInvalid)
}

// Info implements credentials.TransportCredentials.
func (byPeer) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "peer"}
}

// Clone implements credentials.TransportCredentials.
func (b byPeer) Clone() credentials.TransportCredentials { return b }

// OverrideServerName implements credentials.TransportCredentials.
func (byPeer) OverrideServerName(string) error { return nil }

// whoCalls is the process that a call comes from.
func whoCalls(ctx context.Context) unix.Ucred {
	if p, ok := peer.FromContext(ctx); ok {
		if info, ok := p.AuthInfo.(peerInfo); ok {
			return info.Ucred
		}
	}
	return unix.Ucred{}
}
