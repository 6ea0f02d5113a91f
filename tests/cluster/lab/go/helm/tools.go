// Package tools names the program that this module builds, so that its version and sums are pinned here.
//
//go:build tools

package tools

import _ "helm.sh/helm/v4/cmd/helm"
