// One request and one reply over the agent's Unix socket. The contract is api/cni-message.ts: frames of a big-endian
// length and JSON, the namespace's descriptor with the first byte, an empty frame as soon as the agent is at work.
// Every wait is bounded, and whatever else comes than a valid reply counts as no answer.
package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	messageVersion  = 1
	messageBytesMax = 1 << 20
	connectRetry    = 10 * time.Millisecond
)

// attachment is a live one of a GC; the keys are the specification's.
type attachment struct {
	ContainerID string `json:"containerID"`
	IfName      string `json:"ifname"`
}

type requestAttachment struct {
	ContainerID string `json:"containerId"`
	IfName      string `json:"ifName"`
}

type request struct {
	V           int               `json:"v"`
	Op          string            `json:"op"`
	ContainerID string            `json:"containerId"`
	IfName      string            `json:"ifName"`
	Network     string            `json:"network"`
	NetnsPath   string            `json:"netnsPath"`
	NetnsInode  uint64            `json:"netnsInode"`
	Pod         pod               `json:"pod"`
	Annotations map[string]string `json:"annotations"`
	IPs         []string          `json:"ips"`
	// A pointer, since a GC with nothing valid sends an empty list and the other verbs send none.
	ValidAttachments *[]requestAttachment `json:"validAttachments,omitempty"`
	DeadlineMs       int64                `json:"deadlineMs"`
	PluginVersion    string               `json:"pluginVersion"`
}

type reply struct {
	V        int      `json:"v"`
	Code     *uint    `json:"code"`
	Message  string   `json:"message"`
	Details  string   `json:"details"`
	Outcome  string   `json:"outcome"`
	Warnings []string `json:"warnings"`
}

// isUndecided: the agent answered, but did not get as far as a decision.
func (r *reply) isUndecided() bool {
	return r.Outcome == "none" && (*r.Code == 1 || *r.Code == 6 || *r.Code == 104 || *r.Code == 999)
}

// waits are the bounds of one exchange: to connect, to be told that the agent is at work, and altogether.
type waits struct {
	connect, accept, whole time.Duration
}

// ask sends the request, with the descriptor where there is one, and returns the agent's reply. An error says, for
// people, why there is none.
func ask(runDir string, r request, ns *netns, w waits) (*reply, error) {
	deadline := time.Now().Add(w.whole)
	r.V, r.PluginVersion, r.DeadlineMs = messageVersion, pluginVersion, w.whole.Milliseconds()
	body, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode the request: %w", err)
	}
	if len(body) > messageBytesMax {
		return nil, fmt.Errorf("request of %d bytes: expected at most %d", len(body), messageBytesMax)
	}
	path := filepath.Join(runDir, "cni.sock")
	conn, err := connect(path, earlier(deadline, time.Now().Add(w.connect)))
	if err != nil {
		return nil, fmt.Errorf("connect to %q: %w", path, shorten(err))
	}
	defer conn.Close()
	if err := checkPeer(conn); err != nil {
		return nil, err
	}
	accepted := earlier(deadline, time.Now().Add(w.accept))
	if err := send(conn, body, ns, accepted); err != nil {
		return nil, fmt.Errorf("send to %q: %w", path, shorten(err))
	}
	answer, err := receive(conn, accepted, deadline)
	if err != nil {
		return nil, fmt.Errorf("no reply on %q: %w", path, shorten(err))
	}
	return answer, nil
}

// connect retries while the agent's queue is full, which a Unix socket reports at once instead of waiting.
func connect(path string, deadline time.Time) (*net.UnixConn, error) {
	for {
		conn, err := net.DialTimeout("unix", path, time.Until(deadline))
		if err == nil {
			return conn.(*net.UnixConn), nil
		}
		if !errors.Is(err, syscall.EAGAIN) || time.Now().Add(connectRetry).After(deadline) {
			return nil, err
		}
		time.Sleep(connectRetry)
	}
}

// checkPeer refuses a listener that is not the agent's user: the run directory should not allow one, but a pod's
// annotations and namespace are worth a second look.
func checkPeer(conn *net.UnixConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var peer *unix.Ucred
	var failure error
	err = raw.Control(func(fd uintptr) {
		peer, failure = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err := errors.Join(err, failure); err != nil {
		return fmt.Errorf("ask who listens: %w", err)
	}
	if peer.Uid != 0 && int(peer.Uid) != os.Geteuid() {
		return fmt.Errorf("the listener runs as uid %d: expected 0", peer.Uid)
	}
	return nil
}

func send(conn *net.UnixConn, body []byte, ns *netns, deadline time.Time) error {
	if err := conn.SetWriteDeadline(deadline); err != nil {
		return err
	}
	frame := binary.BigEndian.AppendUint32(nil, uint32(len(body)))
	frame = append(frame, body...)
	if ns == nil {
		_, err := conn.Write(frame)
		return err
	}
	n, _, err := conn.WriteMsgUnix(frame, unix.UnixRights(int(ns.file.Fd())), nil)
	if err == nil && n < len(frame) {
		// The descriptor went with what was taken.
		_, err = conn.Write(frame[n:])
	}
	return err
}

// receive reads the reply; the empty frame before it (an agent of an earlier version sends none) extends the wait.
func receive(conn *net.UnixConn, accepted, deadline time.Time) (*reply, error) {
	if err := conn.SetReadDeadline(accepted); err != nil {
		return nil, err
	}
	body, err := readFrame(conn)
	if err == nil && len(body) == 0 {
		if err := conn.SetReadDeadline(deadline); err != nil {
			return nil, err
		}
		body, err = readFrame(conn)
	}
	if err != nil {
		return nil, err
	}
	return parseReply(body)
}

func readFrame(from io.Reader) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(from, head[:]); err != nil {
		return nil, err
	}
	length := binary.BigEndian.Uint32(head[:])
	if length > messageBytesMax {
		return nil, fmt.Errorf("frame of %d bytes: expected at most %d", length, messageBytesMax)
	}
	body := make([]byte, length)
	_, err := io.ReadFull(from, body)
	return body, err
}

func parseReply(body []byte) (*reply, error) {
	var answer reply
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, fmt.Errorf("decode: %w", err)
	}
	if answer.V != messageVersion {
		return nil, fmt.Errorf("version %d: expected %d", answer.V, messageVersion)
	}
	if answer.Code == nil {
		return nil, errors.New("field code: expected a number")
	}
	switch answer.Outcome {
	case "meshed", "unmeshed", "removed", "none":
		return &answer, nil
	}
	return nil, fmt.Errorf("outcome %q: expected meshed, unmeshed, removed or none", answer.Outcome)
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// shorten drops what the messages around it say already (`dial unix /path: connect:`).
func shorten(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return errors.New("timed out")
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the agent closed the connection")
	}
	var number syscall.Errno
	if errors.As(err, &number) {
		return number
	}
	return err
}
