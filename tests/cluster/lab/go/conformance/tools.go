// Package main names the suite's own server, too, so that its sums are pinned here.
//
//go:build tools

package main

import _ "sigs.k8s.io/gateway-api/conformance/echo-basic"
