// The official conformance suite of the Gateway API as a program. It takes the suite's own flags; with -images it only
// prints the images that the suite's pods are of, and with -tests each test with its features (`!` before those of a
// test that is provisional). Its report is written when every test has ended.
package main

import (
	"flag"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"sync"
	"testing"

	"sigs.k8s.io/gateway-api/conformance"
	"sigs.k8s.io/gateway-api/conformance/tests"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/yaml"
)

var image = regexp.MustCompile(`(?m)^\s*(?:- )?image: (\S+)$`)

func main() {
	images := flag.Bool("images", false, "print the images of the suite's pods")
	listed := flag.Bool("tests", false, "print the tests and their features")
	testing.Init()
	flag.Parse()
	switch {
	case *images:
		printImages()
	case *listed:
		for _, test := range tests.ConformanceTests {
			mark := ""
			if test.Provisional {
				mark = "!"
			}
			fmt.Println(test.ShortName, mark, test.Features)
		}
	default:
		whole := []testing.InternalTest{{Name: "Conformance", F: run}, {Name: "Report", F: report}}
		testing.Main(func(string, string) (bool, error) { return true, nil }, whole, nil, nil)
	}
}

// The names of those tests that have passed.
var passed sync.Map

// The suite would write its report while tests that run beside each other are still under way, and count these as
// passed. So it runs without one, and it is kept in mind what each test came to.
func run(t *testing.T) {
	for i := range tests.ConformanceTests {
		test := &tests.ConformanceTests[i]
		name, body := test.ShortName, test.Test
		test.Test = func(t *testing.T, of *suite.ConformanceTestSuite) {
			t.Cleanup(func() {
				if !t.Failed() && !t.Skipped() {
					passed.Store(name, true)
				}
			})
			body(t, of)
		}
	}
	options := conformance.DefaultOptions(t)
	options.ReportOutputPath = ""
	conformance.RunConformanceWithOptions(t, options)
}

// The suite's own report, of a second run in which each test only says again what it came to in the first.
func report(t *testing.T) {
	options := conformance.DefaultOptions(t)
	if options.ReportOutputPath == "" {
		return
	}
	for i := range tests.ConformanceTests {
		test := &tests.ConformanceTests[i]
		name := test.ShortName
		test.Manifests, test.Parallel = nil, false
		test.Test = func(t *testing.T, _ *suite.ConformanceTestSuite) {
			if _, found := passed.Load(name); !found {
				t.Fail()
			}
		}
	}
	again, err := suite.NewConformanceTestSuite(options)
	must(t, err)
	must(t, again.Run(t, tests.ConformanceTests))
	said, err := again.Report()
	must(t, err)
	text, err := yaml.Marshal(said)
	must(t, err)
	must(t, os.WriteFile(options.ReportOutputPath, text, 0o600))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func printImages() {
	var found []string
	err := fs.WalkDir(&conformance.Manifests, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := fs.ReadFile(&conformance.Manifests, path)
		for _, match := range image.FindAllStringSubmatch(string(content), -1) {
			found = append(found, match[1])
		}
		return err
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	slices.Sort(found)
	for _, one := range slices.Compact(found) {
		fmt.Println(one)
	}
}
