// SPDX-License-Identifier: Apache-2.0

package config

// The codes. A number is never used again for something else; topics.md has the
// page of each.
const (
	codeMalformed  = "LVX1001"
	codeEmpty      = "LVX1002"
	codeUnknownKey = "LVX1003"
	codeTwice      = "LVX1004" // a key
	codeMissing    = "LVX1005"
	codeNoValue    = "LVX1006"
	codeType       = "LVX1007"
	codeRange      = "LVX1008"
	codeWord       = "LVX1009"
	codeAddress    = "LVX1010"
	codeHost       = "LVX1011" // an address that a host cannot have
	codePrefix     = "LVX1012"
	codeDuration   = "LVX1013"
	codeService    = "LVX1014" // twice
	codeServer     = "LVX1015" // twice
	codeItem       = "LVX1016" // twice in a list
	codeName       = "LVX1017"
	codeNameTwice  = "LVX1018"
	codeFamily     = "LVX1019"
	codePort       = "LVX1020"
	codeFlag       = "LVX1021"
	codePrime      = "LVX1022"
	codeTLS        = "LVX1023"
	codePath       = "LVX1024"
	codeInterface  = "LVX1025"
	codeForeign    = "LVX1026"
	codeTab        = "LVX1027"
	codeEncoding   = "LVX1028"
	codeTooMuch    = "LVX1029"
	codeRefused    = "LVX1030"
	codeTunnel     = "LVX1031"

	codeLaterKey  = "LVX1101"
	codeLaterWord = "LVX1102"
	codeAllPorts  = "LVX1103"

	codeNoServers    = "LVX1201"
	codeOneServer    = "LVX1202"
	codeVIPIsServer  = "LVX1203"
	codeAllZero      = "LVX1204"
	codeLongCycle    = "LVX1205"
	codeNoFallback   = "LVX1206"
	codeShortTimeout = "LVX1207"
	codeSmallTable   = "LVX1208"
	codeCapacity     = "LVX1209"
	codeMetricsOpen  = "LVX1210"
	codeIdleFlag     = "LVX1211"
	codeIdleWeight   = "LVX1212"
	codeNoServices   = "LVX1213"
	codeIdleTLS      = "LVX1214"
)
