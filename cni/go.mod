module heddle.dev/heddle/cni

go 1.24

require (
	github.com/containernetworking/cni v1.3.1
	golang.org/x/sys v0.35.0
)

require github.com/vishvananda/netns v0.0.4 // indirect
