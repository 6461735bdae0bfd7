// The pod's network namespace as a descriptor: whatever happens to the path, plugin and agent mean the same kernel
// object. Refused is what is no network namespace, and the node's own.
package main

import (
	"fmt"
	"os"

	"github.com/containernetworking/cni/pkg/types"
	"golang.org/x/sys/unix"
)

// ioctl_ns(2); not in x/sys.
const nsGetNsType = 0xb703

type netns struct {
	file  *os.File
	inode uint64
}

// openNetns opens the namespace at path. Error code 8 (invalid network namespace) names what it is instead.
func openNetns(path string) (*netns, *types.Error) {
	refuse := func(format string, values ...any) *types.Error {
		return types.NewError(types.ErrInvalidNetNS, fmt.Sprintf("heddle: CNI_NETNS %q: ", path)+fmt.Sprintf(format, values...), "")
	}
	// Non-blocking, since a fifo at this path would block for ever.
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, refuse("open: %v", err)
	}
	file := os.NewFile(uintptr(fd), path)
	inode, failure := identify(fd, refuse)
	if failure != nil {
		_ = file.Close() // read-only descriptor: nothing can be lost
		return nil, failure
	}
	return &netns{file, inode}, nil
}

func identify(fd int, refuse func(string, ...any) *types.Error) (uint64, *types.Error) {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return 0, refuse("statfs: %v", err)
	}
	if int64(fs.Type) != unix.NSFS_MAGIC {
		return 0, refuse("expected a namespace (nsfs), got file system 0x%x", uint64(fs.Type))
	}
	kind, err := unix.IoctlRetInt(fd, nsGetNsType)
	if err != nil {
		return 0, refuse("ask for its type: %v", err)
	}
	if kind != unix.CLONE_NEWNET {
		return 0, refuse("expected a network namespace, got type 0x%x", kind)
	}
	var own, given unix.Stat_t
	if err := unix.Fstat(fd, &given); err != nil {
		return 0, refuse("stat: %v", err)
	}
	if err := unix.Stat("/proc/thread-self/ns/net", &own); err != nil {
		return 0, refuse("compare with the node's own namespace: %v", err)
	}
	if own.Ino == given.Ino && own.Dev == given.Dev {
		return 0, refuse("expected the pod's namespace, got the node's own")
	}
	return given.Ino, nil
}
