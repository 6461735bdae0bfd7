// The previous result: handed on byte for byte when it is in the request's version already (it always is when libcni
// runs the chain), converted otherwise; and the pod's addresses in it. Spec: CNI 1.1.0 section 5.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"

	"github.com/containernetworking/cni/pkg/types"
	_ "github.com/containernetworking/cni/pkg/types/020" // registers the conversions
	_ "github.com/containernetworking/cni/pkg/types/040"
	_ "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/types/create"
)

// passResult returns what to print for a successful ADD.
func passResult(previous json.RawMessage, version string) ([]byte, *types.Error) {
	if !hasResult(previous) {
		return nil, types.NewError(types.ErrInvalidNetworkConfig,
			"heddle: no prevResult: expected the plugin behind a network plugin in a list, never alone or first", "")
	}
	var head struct {
		CNIVersion *string `json:"cniVersion"`
	}
	if err := json.Unmarshal(previous, &head); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, fmt.Sprintf("heddle: decode prevResult: %v", err), "")
	}
	if head.CNIVersion == nil {
		return insertVersion(previous, version), nil
	}
	if *head.CNIVersion == version {
		return previous, nil
	}
	result, err := create.Create(*head.CNIVersion, previous)
	if err == nil {
		result, err = result.GetAsVersion(version)
	}
	var converted []byte
	if err == nil {
		converted, err = json.Marshal(result)
	}
	if err != nil {
		return nil, types.NewError(types.ErrInvalidNetworkConfig,
			fmt.Sprintf("heddle: convert prevResult from version %q to %q: %v", *head.CNIVersion, version, err), "")
	}
	return converted, nil
}

func hasResult(previous json.RawMessage) bool {
	return len(previous) > 0 && !bytes.Equal(previous, []byte("null"))
}

// insertVersion writes the version, which a result must carry, as the first member and leaves all other bytes alone.
func insertVersion(object json.RawMessage, version string) []byte {
	member := fmt.Sprintf(`"cniVersion":%q`, version)
	rest := object[1:] // behind the brace
	if bytes.TrimLeft(rest, " \t\r\n")[0] != '}' {
		member += ","
	}
	return append(append([]byte{'{'}, member...), rest...)
}

// addresses lists the pod's addresses without prefix lengths. All versions from 0.3.0 on keep them in one place.
func addresses(previous json.RawMessage) ([]string, *types.Error) {
	ips := []string{}
	if !hasResult(previous) {
		return ips, nil
	}
	var result struct {
		IPs []struct {
			Address string `json:"address"`
		} `json:"ips"`
	}
	if err := json.Unmarshal(previous, &result); err != nil {
		return ips, types.NewError(types.ErrDecodingFailure, fmt.Sprintf("heddle: decode prevResult.ips: %v", err), "")
	}
	for index, ip := range result.IPs {
		prefix, err := netip.ParsePrefix(ip.Address)
		if err != nil {
			return ips, types.NewError(types.ErrInvalidNetworkConfig,
				fmt.Sprintf("heddle: prevResult.ips[%d].address %q: expected an address with a prefix length", index, ip.Address), "")
		}
		ips = append(ips, prefix.Addr().Unmap().String())
	}
	return ips, nil
}
