// Package decode reads files of policies of every kind.
package decode

import (
	"slices"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/policy/cnp"
	"github.com/headgate/headgate/policy/envoy"
	"github.com/headgate/headgate/policy/knp"
	"github.com/headgate/headgate/policy/manifest"
)

// Error is one thing that is wrong with one document, and where.
type Error = manifest.Error

// Errors is everything that is wrong with a file, in its order.
type Errors = manifest.Errors

// Decode reads every document of a file, YAML or JSON, whatever its kind. All or
// nothing: if anything is wrong it returns no policy and Errors.
func Decode(file string, data []byte) ([]policy.Policy, error) {
	return manifest.Decode(file, data, slices.Concat(cnp.Kinds(), knp.Kinds(), envoy.Kinds()))
}
