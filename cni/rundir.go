// What plugin and agent leave for each other in the run directory, for when the other is not there: the set of meshed
// namespaces and the ready marker (agent), records of pods that passed without it and tombstones (plugin).
// The contract is api/cni-message.ts. Nothing here waits on the agent.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

const (
	recordMissed    = "missed"
	recordOpen      = "open"
	recordTombstone = "tombstone"

	namespacesBytesMax = 4 << 20
	// recordsMax bounds each folder; an agent that comes back compares with the runtime anyway.
	recordsMax = 8192
)

var recordFolders = map[string]string{recordMissed: "missed", recordOpen: "open", recordTombstone: "tombstones"}

// Container IDs become file names. The specification's alphabet has no slash and no leading dot.
var containerIDPattern = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.\-]{0,199}$`)

type record struct {
	V             int               `json:"v"`
	Kind          string            `json:"kind"`
	ContainerID   string            `json:"containerId"`
	IfName        string            `json:"ifName"`
	Network       string            `json:"network"`
	NetnsPath     string            `json:"netnsPath"`
	NetnsInode    uint64            `json:"netnsInode"`
	Pod           pod               `json:"pod"`
	Annotations   map[string]string `json:"annotations"`
	IPs           []string          `json:"ips"`
	Cause         string            `json:"cause"`
	TimeMs        int64             `json:"timeMs"`
	PluginVersion string            `json:"pluginVersion"`
}

// writeRecord leaves a record, replacing an earlier one of the same container. Written beside and renamed, so that the
// agent never reads half of it.
func writeRecord(runDir string, r record) error {
	if !containerIDPattern.MatchString(r.ContainerID) {
		return fmt.Errorf("container ID %q: expected at most 200 characters of the CNI alphabet", r.ContainerID)
	}
	folder := filepath.Join(runDir, recordFolders[r.Kind])
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	if isFull(folder) {
		return fmt.Errorf("folder %q: expected fewer than %d records", folder, recordsMax)
	}
	encoded, err := json.Marshal(r)
	if err != nil {
		return err
	}
	temporary, err := os.CreateTemp(folder, ".new-")
	if err != nil {
		return err
	}
	_, err = temporary.Write(encoded)
	err = errors.Join(err, temporary.Close())
	if err == nil {
		err = os.Rename(temporary.Name(), filepath.Join(folder, r.ContainerID+".json"))
	}
	if err != nil {
		_ = os.Remove(temporary.Name()) // the error above is the one to tell
	}
	return err
}

func isFull(folder string) bool {
	handle, err := os.Open(folder)
	if err != nil {
		return false // the write that follows fails with the better message
	}
	defer handle.Close()
	names, err := handle.Readdirnames(recordsMax)
	return err == nil && len(names) >= recordsMax
}

func hasRecord(runDir, kind, containerID string) bool {
	if !containerIDPattern.MatchString(containerID) {
		return false
	}
	_, err := os.Stat(filepath.Join(runDir, recordFolders[kind], containerID+".json"))
	return err == nil
}

// removeRecords forgets that the container passed without the agent: it is gone.
func removeRecords(runDir, containerID string) {
	if !containerIDPattern.MatchString(containerID) {
		return
	}
	for _, kind := range []string{recordMissed, recordOpen} {
		// Absent is the normal case; one that stays is dropped by the agent, which compares with the runtime.
		_ = os.Remove(filepath.Join(runDir, recordFolders[kind], containerID+".json"))
	}
}

// pruneRecords removes the records of containers of this network that are not among the valid ones (GC).
func pruneRecords(runDir, network string, valid map[string]bool) {
	for _, kind := range []string{recordMissed, recordOpen} {
		folder := filepath.Join(runDir, recordFolders[kind])
		entries, err := os.ReadDir(folder)
		if err != nil {
			continue // no folder: nothing was ever recorded
		}
		for _, entry := range entries {
			id, isRecord := strings.CutSuffix(entry.Name(), ".json")
			if !isRecord || valid[id] {
				continue
			}
			path := filepath.Join(folder, entry.Name())
			var r record
			if raw, err := os.ReadFile(path); err != nil || json.Unmarshal(raw, &r) != nil || r.Network != network {
				continue
			}
			_ = os.Remove(path) // the next GC comes
		}
	}
}

// namespaceSet is what the agent left; nil when it left nothing.
type namespaceSet struct {
	V      int `json:"v"`
	Meshed map[string]struct {
		OnAgentDown string `json:"onAgentDown"`
	} `json:"meshed"`
	Unmeshed []string `json:"unmeshed"`
}

// readNamespaces returns nil without error when the file is not there.
func readNamespaces(runDir string) (*namespaceSet, error) {
	path := filepath.Join(runDir, "meshed-namespaces.json")
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	raw, err := io.ReadAll(io.LimitReader(file, namespacesBytesMax+1))
	if err != nil {
		return nil, err
	}
	if len(raw) > namespacesBytesMax {
		return nil, fmt.Errorf("%q: expected at most %d bytes", path, namespacesBytesMax)
	}
	var set namespaceSet
	if err := json.Unmarshal(raw, &set); err != nil {
		return nil, fmt.Errorf("%q: %v", path, err)
	}
	if set.V != messageVersion {
		return nil, fmt.Errorf("%q: version %d: expected %d", path, set.V, messageVersion)
	}
	return &set, nil
}

func (s *namespaceSet) isMeshed(namespace string) bool {
	if s == nil {
		return false
	}
	_, ok := s.Meshed[namespace]
	return ok
}

func (s *namespaceSet) isUnmeshed(namespace string) bool {
	if s == nil {
		return false
	}
	for _, name := range s.Unmeshed {
		if name == namespace {
			return true
		}
	}
	return false
}

// onAgentDown returns "" where the namespace says nothing.
func (s *namespaceSet) onAgentDown(namespace string) string {
	if s == nil {
		return ""
	}
	return s.Meshed[namespace].OnAgentDown
}

// wasReady tells whether an agent has been ready since the machine started.
func wasReady(runDir string) (bool, error) {
	raw, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return false, err
	}
	_, err = os.Stat(filepath.Join(runDir, "ready-"+strings.TrimSpace(string(raw))))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
