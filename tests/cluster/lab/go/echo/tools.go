// Package tools names the programs that this module builds, so that their version and sums are pinned here.
//
//go:build tools

package tools

import (
	_ "istio.io/istio/pkg/test/echo/cmd/client"
	_ "istio.io/istio/pkg/test/echo/cmd/server"
)
