package channel

import (
	"errors"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// metadataNames are host names under which clouds serve a machine's credentials to its programs.
var metadataNames = []string{"metadata", "metadata.google.internal", "metadata.goog", "instance-data", "instance-data.ec2.internal"}

// metadataAddresses serve the same and are not link-local: AWS over IPv6, Alibaba and Oracle.
var metadataAddresses = []netip.Addr{
	netip.MustParseAddr("fd00:ec2::254"), netip.MustParseAddr("100.100.100.200"), netip.MustParseAddr("192.0.0.192"),
}

// CheckBaseURL validates the base URL of a provider's API, to which every call sends credentials. It allows https, and http to a
// loopback host, because the simulator listens there. The error completes "base_url …". Names are not resolved: the address of a name
// can change at any time.
func CheckBaseURL(s string) error {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Opaque != "" || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https"):
		return errors.New("must be an https URL")
	case u.User != nil:
		return errors.New("must not hold a user or a password")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.Contains(s, "#"):
		return errors.New("must have neither a query nor a fragment")
	}
	if p := u.Port(); p != "" || strings.HasSuffix(u.Host, ":") {
		if n, err := strconv.Atoi(p); err != nil || n < 1 || n > 65535 {
			return errors.New("must have a port from 1 to 65535, or none")
		}
	}
	loopback, err := checkHost(strings.ToLower(strings.TrimSuffix(u.Hostname(), ".")))
	if err == nil && u.Scheme != "https" && !loopback {
		err = errors.New("must be an https URL, unless its host is this machine (localhost, 127.0.0.1)")
	}
	return err
}

// checkHost refuses hosts that cannot be a provider's, and reports whether the host is this machine.
func checkHost(host string) (loopback bool, err error) {
	if a, perr := netip.ParseAddr(host); perr == nil {
		return checkAddress(a)
	}
	for i := range len(host) {
		c := host[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '.' && c != '_' {
			return false, errors.New("must have a host name of letters, digits and hyphens, or an IP address")
		}
	}
	labels := strings.Split(host, ".")
	last := labels[len(labels)-1]
	switch {
	case host == "" || strings.Contains("."+host+".", ".."):
		return false, errors.New("must have a host")
	case last[0] >= '0' && last[0] <= '9':
		// No top-level domain begins with a digit, and resolvers read such names as addresses: 2130706433, 0x7f.1, 127.1.
		return false, errors.New("must have a host name, or an IP address in its usual form")
	}
	for _, name := range metadataNames {
		if host == name {
			return false, errors.New("must not lead to a cloud's metadata")
		}
	}
	return host == "localhost" || strings.HasSuffix(host, ".localhost"), nil
}

func checkAddress(a netip.Addr) (loopback bool, err error) {
	if a.Zone() != "" {
		return false, errors.New("must not lead to a link-local address")
	}
	a = embedded(a)
	switch {
	case a.IsLinkLocalUnicast():
		return false, errors.New("must not lead to a link-local address")
	case a.IsUnspecified() || a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return false, errors.New("must lead to one host")
	}
	for _, m := range metadataAddresses {
		if a == m {
			return false, errors.New("must not lead to a cloud's metadata")
		}
	}
	return a.IsLoopback(), nil
}

// embedded returns the IPv4 address inside an IPv6 address: mapped or compatible (RFC 4291), translated (RFC 6052) or tunnelled by
// 6to4 (RFC 3056). It returns other addresses unchanged.
func embedded(a netip.Addr) netip.Addr {
	if a = a.Unmap(); a.Is4() || a == netip.IPv6Loopback() || a.IsUnspecified() {
		return a
	}
	b := a.As16()
	switch {
	case netip.MustParsePrefix("::/96").Contains(a), netip.MustParsePrefix("64:ff9b::/96").Contains(a):
		return netip.AddrFrom4([4]byte(b[12:]))
	case netip.MustParsePrefix("2002::/16").Contains(a):
		return netip.AddrFrom4([4]byte(b[2:6]))
	}
	return a
}
