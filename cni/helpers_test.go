package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The test binary is the plugin when it is told so: every verb runs as a process of its own, as a runtime runs it.
func TestMain(m *testing.M) {
	if os.Getenv("HEDDLE_TEST_PLUGIN") == "1" {
		main()
	}
	os.Exit(m.Run())
}

type call struct {
	command     string
	containerID string
	netns       string
	args        string
	stdin       string
	// unset removes a variable that is otherwise there.
	unset string
}

type outcome struct {
	status   int
	stdout   string
	stderr   string
	duration time.Duration
}

func (c call) run(t *testing.T) outcome {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	variables := map[string]string{
		"HEDDLE_TEST_PLUGIN": "1", "CNI_COMMAND": c.command, "CNI_CONTAINERID": c.containerID, "CNI_NETNS": c.netns,
		"CNI_IFNAME": "eth0", "CNI_ARGS": c.args, "CNI_PATH": "/opt/cni/bin",
	}
	for name, value := range variables {
		if name != c.unset {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
	}
	cmd.Stdin = bytes.NewReader([]byte(c.stdin))
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	startedAt := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	watchdog := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
	defer watchdog.Stop()
	err := cmd.Wait()
	if err != nil && cmd.ProcessState.ExitCode() < 0 {
		t.Fatalf("the plugin was killed: %v; stderr %s", err, stderr.String())
	}
	return outcome{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String(), time.Since(startedAt)}
}

type printedError struct {
	CNIVersion string `json:"cniVersion"`
	Code       int    `json:"code"`
	Msg        string `json:"msg"`
	Details    string `json:"details"`
}

// failure decodes what a failed verb printed; standard output must hold that and nothing else.
func (o outcome) failure(t *testing.T) printedError {
	t.Helper()
	if o.status == 0 {
		t.Fatalf("expected a failure, got status 0 and %q", o.stdout)
	}
	var printed printedError
	if err := json.Unmarshal([]byte(o.stdout), &printed); err != nil {
		t.Fatalf("standard output %q: %v", o.stdout, err)
	}
	if len(printed.Msg) < 8 || printed.Msg[:8] != "heddle: " {
		t.Fatalf("message %q: expected the token \"heddle: \" first", printed.Msg)
	}
	return printed
}

const podArgs = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-1;K8S_POD_INFRA_CONTAINER_ID=c1;" +
	"K8S_POD_UID=7f1e0a2c-0000-4000-8000-000000000001"

const plainResult = `{"cniVersion":"1.0.0","ips":[{"address":"10.1.2.3/24"},{"address":"fd00::3/64"}],"dns":{}}`

type stdinOptions struct {
	version     string
	previous    string
	annotations map[string]string
	extra       string
	runDir      string
}

// stdin renders a configuration as libcni hands it over.
func (o stdinOptions) String() string {
	if o.version == "" {
		o.version = "1.0.0"
	}
	text := fmt.Sprintf(`{"cniVersion":%q,"name":"k8s","type":"heddle-cni","runDir":%q`, o.version, o.runDir)
	if o.annotations != nil {
		encoded, _ := json.Marshal(map[string]any{annotationsKey: o.annotations})
		text += `,"runtimeConfig":` + string(encoded)
	}
	if o.previous != "" {
		text += `,"prevResult":` + o.previous
	}
	if o.extra != "" {
		text += "," + o.extra
	}
	return text + "}"
}

// newNetns makes a network namespace that lives as long as the test and returns a path to it that other processes can
// open, and its inode.
func newNetns(t *testing.T) (string, uint64) {
	t.Helper()
	type made struct {
		path string
		err  error
	}
	ready, done := make(chan made), make(chan struct{})
	go func() {
		// Never unlocked: the thread in the other namespace ends with the goroutine.
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_NEWNET)
		ready <- made{fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), unix.Gettid()), err}
		<-done
	}()
	one := <-ready
	t.Cleanup(func() { close(done) })
	if one.err != nil {
		t.Fatalf("make a network namespace: %v", one.err)
	}
	var stat unix.Stat_t
	if err := unix.Stat(one.path, &stat); err != nil {
		t.Fatal(err)
	}
	return one.path, stat.Ino
}

// seen is one request as the fake agent received it.
type seen struct {
	raw     []byte
	request request
	// inode of the descriptor that came along; 0 without one.
	inode uint64
}

// fakeAgent answers every request with what `answer` writes.
type fakeAgent struct {
	mu       sync.Mutex
	requests []seen
}

func frame(body string) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
}

func startAgent(t *testing.T, runDir string, answer func(conn *net.UnixConn)) *fakeAgent {
	t.Helper()
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(runDir, "cni.sock"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	agent := &fakeAgent{}
	var open sync.WaitGroup
	t.Cleanup(func() {
		_ = listener.Close()
		open.Wait()
	})
	go func() {
		for {
			conn, err := listener.AcceptUnix()
			if err != nil {
				return
			}
			open.Add(1)
			go func() {
				defer open.Done()
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
				if one, err := readRequest(conn); err == nil {
					agent.mu.Lock()
					agent.requests = append(agent.requests, one)
					agent.mu.Unlock()
				}
				answer(conn)
			}()
		}
	}()
	return agent
}

func (a *fakeAgent) all() []seen {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]seen{}, a.requests...)
}

func readRequest(conn *net.UnixConn) (seen, error) {
	buffer, oob := make([]byte, 1<<16), make([]byte, 256)
	n, oobn, _, _, err := conn.ReadMsgUnix(buffer, oob)
	if err != nil || n < 4 {
		return seen{}, fmt.Errorf("%d bytes: %w", n, err)
	}
	var one seen
	if messages, err := unix.ParseSocketControlMessage(oob[:oobn]); err == nil && len(messages) == 1 {
		fds, err := unix.ParseUnixRights(&messages[0])
		if err != nil || len(fds) != 1 {
			return one, fmt.Errorf("descriptors %v: %w", fds, err)
		}
		var stat unix.Stat_t
		err = unix.Fstat(fds[0], &stat)
		_ = unix.Close(fds[0])
		if err != nil {
			return one, err
		}
		one.inode = stat.Ino
	}
	length := int(binary.BigEndian.Uint32(buffer))
	one.raw = append([]byte{}, buffer[4:n]...)
	if missing := length - len(one.raw); missing > 0 {
		rest := make([]byte, missing)
		if _, err := io.ReadFull(conn, rest); err != nil {
			return one, err
		}
		one.raw = append(one.raw, rest...)
	}
	return one, json.Unmarshal(one.raw, &one.request)
}

// replies writes frames in turn.
func replies(frames ...[]byte) func(*net.UnixConn) {
	return func(conn *net.UnixConn) {
		for _, one := range frames {
			_, _ = conn.Write(one)
		}
	}
}

const replyMeshed = `{"v":1,"code":0,"message":"","details":"","outcome":"meshed","warnings":[]}`

// records lists the files the plugin left, by folder.
func records(t *testing.T, runDir string) map[string][]record {
	t.Helper()
	found := map[string][]record{}
	for kind, folder := range recordFolders {
		entries, err := os.ReadDir(filepath.Join(runDir, folder))
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, entry := range entries {
			raw, err := os.ReadFile(filepath.Join(runDir, folder, entry.Name()))
			if err != nil {
				t.Fatal(err)
			}
			var r record
			if err := json.Unmarshal(raw, &r); err != nil {
				t.Fatalf("%s: %v", entry.Name(), err)
			}
			if entry.Name() != r.ContainerID+".json" || r.Kind != kind || r.V != 1 || r.TimeMs == 0 || r.Cause == "" {
				t.Fatalf("%s: incomplete record %s", entry.Name(), raw)
			}
			found[kind] = append(found[kind], r)
		}
	}
	return found
}

func writeNamespaces(t *testing.T, runDir, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(runDir, "meshed-namespaces.json"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
