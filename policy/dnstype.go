package policy

import (
	"fmt"
	"strconv"
	"strings"
)

// dnsTypes are the types of questions that have a name here, as the IANA has them.
var dnsTypes = map[string]uint16{
	"A": 1, "NS": 2, "CNAME": 5, "SOA": 6, "NULL": 10, "PTR": 12, "HINFO": 13, "MX": 15, "TXT": 16, "RP": 17, "AFSDB": 18,
	"SIG": 24, "KEY": 25, "AAAA": 28, "LOC": 29, "SRV": 33, "NAPTR": 35, "KX": 36, "CERT": 37, "DNAME": 39, "APL": 42,
	"DS": 43, "SSHFP": 44, "IPSECKEY": 45, "RRSIG": 46, "NSEC": 47, "DNSKEY": 48, "DHCID": 49, "NSEC3": 50, "NSEC3PARAM": 51,
	"TLSA": 52, "SMIMEA": 53, "HIP": 55, "CDS": 59, "CDNSKEY": 60, "OPENPGPKEY": 61, "CSYNC": 62, "ZONEMD": 63, "SVCB": 64,
	"HTTPS": 65, "SPF": 99, "EUI48": 108, "EUI64": 109, "IXFR": 251, "AXFR": 252, "ANY": 255, "URI": 256, "CAA": 257,
}

// ParseDNSType reads a type of questions: its name, or TYPE with its number (RFC 3597).
func ParseDNSType(text string) (uint16, error) {
	if typ, ok := dnsTypes[strings.ToUpper(text)]; ok {
		return typ, nil
	}
	if number, ok := strings.CutPrefix(strings.ToUpper(text), "TYPE"); ok {
		if n, err := strconv.ParseUint(number, 10, 16); err == nil {
			return uint16(n), nil
		}
	}
	return 0, fmt.Errorf("%q is no type of DNS questions; write A, AAAA, TXT and the like, or TYPE and its number", text)
}

// DNSTypeName is what ParseDNSType reads.
func DNSTypeName(typ uint16) string {
	for name, n := range dnsTypes {
		if n == typ {
			return name
		}
	}
	return "TYPE" + strconv.Itoa(int(typ))
}
