package warren

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
)

// The rules of the tree. Each is a function that reads the parsed tree and returns its faults; TestArchitecture runs all of
// them over this module, TestRulesBite over a small tree that breaks every one. Nothing is type-checked: go/parser is
// quick, sees the files of every OS at once and needs no tool to be installed.
var rules = []rule{
	{"layers", "imports go down only: cmd, node, dataplane, engines and edges, values; engines and edges never know each other", layers},
	{"fan-out", "a part that needs many others knows too much: engines and edges import at most 4, dataplane, report and cmd 8", fanOut},
	{"test world", "package testnet is for tests: only _test.go files may import it", testWorld},
	{"package doc", "each package says once, in a comment 'Package x ...', what it is", packageDoc},
	{"exported doc", "every exported name says what its signature cannot: units, nil, ownership, errors, concurrency", exportedDoc},
	{"size", "a reader holds so much in mind: file 700 lines (test 1200), function 100 (test 200), package 4000; _gen.go is free", sizes},
	{"pure", "values and engines have no clock, socket, file, goroutine or lock: the same inputs give the same outputs", pure},
	{"init", "nothing runs before main: no init()", noInit},
	{"output", "only commands print and exit: return errors, log to the injected slog.Logger", noOutput},
	{"netip", "addresses are net/netip values, never net.IP", noNetIP},
	{"unsafe", "package unsafe is for the edges, where the OS wants pointers", noUnsafe},
	{"goroutines", "goroutines start only where they are waited for: udp tun host api dht stream portmap dataplane node testnet cmd, by WaitGroup.Go or errgroup, with a comment that says who stops them", goroutines},
	{"spec citation", "what code cites exists: spec/FILE.md and the heading of the anchor", specCitations},
	{"spec proof", "every section of spec/ that says MUST is cited by a test", specProof},
	{"fuzz", "every exported Parse function of what comes from outside has a Fuzz target that calls it", fuzzed},
	{"todo", "work left over is an issue: write TODO(#number)", todos},
	{"sleep", "a test waits for what it expects, not for a time: no time.Sleep in tests", noSleep},
	{"skip", "a test that skips says why", skips},
}

// allowed is the list of exceptions, by rule and then by place: a file or a package folder, or either
// with ":name" for one function or one banned name in it. Every reason begins
// with the day it was granted. The list may only shrink: an entry that excuses nothing is itself a fault.
var allowed = map[string]map[string]string{
	"layers": {
		"cmd/warren/start.go": "2026-11-22: the daemon that cmd starts as a service or in the background is not there yet to be asked",
	},
	"pure": {
		"internal/wireguard:sync.Mutex": "2026-11-22: the replay window of a keypair is shared by receiving workers; its lock is the one lock of an engine",
	},
	"size": {
		"internal/node": "2026-11-22: it joins eight engines and nine edges; what describes them is package report now; what runs of a network (mesh) is to follow it",
	},
	"netip": {
		"internal/host": "2026-11-22: netlink and net.Interface speak net.IPNet; converted where they are called",
	},
}

// The kinds of packages under internal/, by folder name. A new package needs an ADR and its place here.
var kinds = map[string]string{
	"key": "value", "wire": "value", "packet": "value", "config": "value",
	"wireguard": "engine", "path": "engine", "route": "engine", "nat": "engine", "discover": "engine", "gossip": "engine",
	"member": "engine", "filter": "engine", "dns": "engine", "join": "engine",
	"udp": "edge", "tun": "edge", "host": "edge", "state": "edge", "api": "edge", "web": "edge",
	"dht": "edge", "stream": "edge", "portmap": "edge",
	"dataplane": "dataplane", "report": "report", "node": "node", "testnet": "testnet",
}

var (
	values     = []string{"key", "wire", "packet", "config"}
	hot        = []string{"wireguard", "path", "route", "filter"}
	mayStartGo = []string{"udp", "tun", "host", "api", "dht", "stream", "portmap", "dataplane", "node", "testnet"}
	parsing    = []string{"packet", "wire", "wireguard", "config", "gossip", "join", "discover", "stream", "dht"}
)

const (
	maxFile, maxTestFile   = 700, 1200
	maxFunc, maxTestFunc   = 100, 200
	maxPackage             = 4000
	maxFanOut, maxFanOutUp = 4, 8 // up: dataplane, report and cmd
)

// rule is one rule: its name, why we have it, and how its faults are found.
type rule struct {
	name, why string
	check     func(*tree) []fault
}

// fault is one breach: key is what the allow-list may name, place is for the reader.
type fault struct{ key, place, text string }

// tree is the whole module, parsed.
type tree struct {
	module   string
	fset     *token.FileSet
	files    []*file
	sections map[string]map[string]bool // spec file -> heading slugs
	musts    []must
}

// file is one Go source file.
type file struct {
	path, dir string // relative to the root, with slashes
	test, gen bool
	lines     int
	ast       *ast.File
	imports   map[string]string // local name -> path
	targets   []string          // the same paths, each once
}

// must is a line of spec/ that holds the word MUST.
type must struct {
	place, anchor string // anchor: file#slug
}

func TestArchitecture(t *testing.T) {
	tr, err := load(os.DirFS("."))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rules {
		t.Run(strings.ReplaceAll(r.name, " ", "-"), func(t *testing.T) {
			used := map[string]bool{}
			for _, f := range r.check(tr) {
				if key, ok := excuse(r.name, f.key); ok {
					used[key] = true
					continue
				}
				t.Errorf("%s: %s\n\trule %q: %s", f.place, f.text, r.name, r.why)
			}
			for key, reason := range allowed[r.name] {
				if !used[key] {
					t.Errorf("arch_test.go: the allowance of %s (%s) excuses nothing: remove it", key, reason)
				}
				if !regexp.MustCompile(`^20\d\d-\d\d-\d\d: .{20,}`).MatchString(reason) {
					t.Errorf("arch_test.go: the allowance of %s needs a date and a reason, has %q", key, reason)
				}
			}
		})
	}
	for name := range allowed {
		if !slices.ContainsFunc(rules, func(r rule) bool { return r.name == name }) {
			t.Errorf("arch_test.go: allowances for a rule that does not exist: %q", name)
		}
	}
}

// excuse looks for an allowance for key ("dir/file.go" or "dir/file.go:name"): for itself, its file or its folder.
func excuse(rule, key string) (string, bool) {
	name, detail, _ := strings.Cut(key, ":")
	for _, k := range []string{key, name, path.Dir(name) + ":" + detail, path.Dir(name)} {
		if _, ok := allowed[rule][k]; ok {
			return k, true
		}
	}
	return "", false
}

func load(fsys fs.FS) (*tree, error) {
	mod, err := fs.ReadFile(fsys, "go.mod")
	if err != nil {
		return nil, err
	}
	tr := &tree{fset: token.NewFileSet(), sections: map[string]map[string]bool{}}
	tr.module = strings.Fields(string(mod))[1]
	err = fs.WalkDir(fsys, ".", func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && p != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || p == "bin"):
			return fs.SkipDir
		case path.Ext(p) == ".go":
			return tr.addGo(fsys, p)
		case path.Ext(p) == ".md" && path.Dir(p) == "spec":
			return tr.addSpec(fsys, p)
		}
		return nil
	})
	return tr, err
}

func (tr *tree) addGo(fsys fs.FS, p string) error {
	src, err := fs.ReadFile(fsys, p)
	if err != nil {
		return err
	}
	a, err := parser.ParseFile(tr.fset, p, src, parser.ParseComments)
	if err != nil {
		return err
	}
	f := &file{path: p, dir: path.Dir(p), ast: a, lines: strings.Count(string(src), "\n"), imports: map[string]string{},
		test: strings.HasSuffix(p, "_test.go"), gen: strings.HasSuffix(p, "_gen.go")}
	for _, im := range a.Imports {
		target, _ := strconv.Unquote(im.Path.Value)
		name := path.Base(target)
		if im.Name != nil {
			name = im.Name.Name
		}
		f.imports[name] = target
		f.targets = append(f.targets, target)
	}
	tr.files = append(tr.files, f)
	return nil
}

var notInSlug = regexp.MustCompile(`[^\p{L}\p{N} _-]`)

// addSpec notes the headings of a Markdown file and the lines that say MUST, outside of code blocks.
func (tr *tree) addSpec(fsys fs.FS, p string) error {
	src, err := fs.ReadFile(fsys, p)
	if err != nil {
		return err
	}
	slugs := map[string]bool{}
	tr.sections[p] = slugs
	anchor, code := "", false
	for i, line := range strings.Split(string(src), "\n") {
		if strings.HasPrefix(strings.TrimSpace(line), "```") {
			code = !code
		}
		if code {
			continue
		}
		if h := strings.TrimLeft(line, "#"); h != line && strings.HasPrefix(h, " ") {
			base := strings.ReplaceAll(notInSlug.ReplaceAllString(strings.ToLower(strings.TrimSpace(h)), ""), " ", "-")
			anchor = base
			for n := 1; slugs[anchor]; n++ {
				anchor = fmt.Sprintf("%s-%d", base, n)
			}
			slugs[anchor] = true
		}
		if regexp.MustCompile(`\bMUST\b`).MatchString(line) && !strings.Contains(line, "RFC 2119") {
			tr.musts = append(tr.musts, must{fmt.Sprintf("%s:%d", p, i+1), p + "#" + anchor})
		}
	}
	return nil
}

// kind says what a file's package is: value, engine, edge, dataplane, node, testnet, cmd, root, test or "" (unknown).
func (f *file) kind() string {
	top, rest, _ := strings.Cut(f.dir, "/")
	switch {
	case f.dir == ".":
		return "root"
	case top == "internal":
		return kinds[rest]
	case top == "cmd" || top == "test" || top == "bench":
		return top
	}
	return ""
}

// name is the folder of a package below internal/.
func (f *file) name() string { return strings.TrimPrefix(f.dir, "internal/") }

// production lists the files that are not tests.
func (tr *tree) production() []*file {
	return slices.DeleteFunc(slices.Clone(tr.files), func(f *file) bool { return f.test })
}

// internalImports lists the packages below internal/ that f imports, by folder.
func (tr *tree) internalImports(f *file) (names []string) {
	for _, target := range f.targets {
		if n, ok := strings.CutPrefix(target, tr.module+"/internal/"); ok {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	return names
}

func (tr *tree) fault(f *file, n ast.Node, format string, args ...any) fault {
	pos := tr.fset.Position(n.Pos())
	return fault{f.path, fmt.Sprintf("%s:%d", f.path, pos.Line), fmt.Sprintf(format, args...)}
}

func layers(tr *tree) (out []fault) {
	down := map[string][]string{
		"engine": values, "edge": values, "cmd": {"node", "api", "config", "key", "wire"}, "testnet": values,
		"dataplane": append(slices.Clone(values), hot...), "report": append([]string{"api", "member", "path", "route", "join"}, values...), "root": {"node", "config", "key"},
	}
	own := map[string][]string{"wire": {"key"}, "config": {"key"}, "web": append([]string{"api"}, values...)}
	for _, f := range tr.production() {
		k := f.kind()
		if k == "" {
			out = append(out, fault{f.path, f.path, "package " + f.dir + " has no place in the layers: give it one in arch_test.go, by an ADR"})
			continue
		}
		may := down[k]
		if o, ok := own[f.name()]; ok {
			may = o
		}
		for _, n := range tr.internalImports(f) {
			switch {
			case k == "node" && kinds[n] != "node", k == "test", k == "bench", slices.Contains(may, n):
			default:
				out = append(out, tr.fault(f, f.ast.Name, "%s (%s) imports %s (%s)", f.dir, k, n, kinds[n]))
			}
		}
	}
	return out
}

func fanOut(tr *tree) (out []fault) {
	seen := map[string]map[string]bool{}
	limit := map[string]int{"engine": maxFanOut, "edge": maxFanOut, "dataplane": maxFanOutUp, "report": maxFanOutUp, "cmd": maxFanOutUp}
	for _, f := range tr.production() {
		if seen[f.dir] == nil {
			seen[f.dir] = map[string]bool{}
		}
		for _, n := range tr.internalImports(f) {
			seen[f.dir][n] = true
		}
		if n, ok := limit[f.kind()]; ok && len(seen[f.dir]) > n {
			out = append(out, fault{f.dir, f.path, fmt.Sprintf("%s imports %d internal packages %v, the limit is %d",
				f.dir, len(seen[f.dir]), slices.Sorted(maps.Keys(seen[f.dir])), n)})
		}
	}
	return out
}

func testWorld(tr *tree) (out []fault) {
	for _, f := range tr.production() {
		if slices.Contains(tr.internalImports(f), "testnet") {
			out = append(out, tr.fault(f, f.ast.Name, "imports testnet"))
		}
	}
	return out
}

func packageDoc(tr *tree) (out []fault) {
	docs := map[string][]string{}
	for _, f := range tr.files {
		if _, ok := docs[f.dir]; !ok && (!f.test || strings.HasPrefix(f.dir, "test/")) {
			docs[f.dir] = nil
		}
		if f.ast.Doc == nil {
			continue
		}
		docs[f.dir] = append(docs[f.dir], f.path)
		text, want := f.ast.Doc.Text(), "Package "+strings.TrimSuffix(f.ast.Name.Name, "_test")
		if f.ast.Name.Name == "main" {
			want = "Command " + path.Base(f.dir)
		}
		if !strings.HasPrefix(text, want+" ") {
			out = append(out, fault{f.path, f.path, fmt.Sprintf("the package comment begins %.40q, want %q", text, want+" ...")})
		}
	}
	for _, dir := range slices.Sorted(maps.Keys(docs)) {
		if len(docs[dir]) != 1 {
			out = append(out, fault{dir, dir, fmt.Sprintf("has %d package comments %v, want one", len(docs[dir]), docs[dir])})
		}
	}
	return out
}

func exportedDoc(tr *tree) (out []fault) {
	for _, f := range tr.production() {
		for _, d := range f.ast.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Doc == nil && d.Name.IsExported() && (d.Recv == nil || ast.IsExported(receiver(d))) {
					out = append(out, tr.fault(f, d, "%s is exported and has no comment", d.Name.Name))
				}
			case *ast.GenDecl:
				for _, s := range d.Specs {
					for _, name := range undocumented(d, s) {
						out = append(out, tr.fault(f, name, "%s is exported and has no comment", name.Name))
					}
				}
			}
		}
	}
	return out
}

// undocumented lists the exported names of s without a comment at themselves, beside themselves or (const and var) at the group.
func undocumented(d *ast.GenDecl, s ast.Spec) (names []*ast.Ident) {
	switch s := s.(type) {
	case *ast.TypeSpec:
		if s.Doc == nil && (d.Doc == nil || d.Lparen.IsValid()) {
			names = append(names, s.Name)
		}
	case *ast.ValueSpec:
		if s.Doc == nil && s.Comment == nil && d.Doc == nil {
			names = append(names, s.Names...)
		}
	}
	return slices.DeleteFunc(names, func(n *ast.Ident) bool { return !n.IsExported() })
}

// receiver is the type name of a method's receiver.
func receiver(d *ast.FuncDecl) string {
	t := d.Recv.List[0].Type
	for {
		switch x := t.(type) {
		case *ast.StarExpr:
			t = x.X
		case *ast.IndexExpr:
			t = x.X
		case *ast.IndexListExpr:
			t = x.X
		case *ast.Ident:
			return x.Name
		default:
			return ""
		}
	}
}

func sizes(tr *tree) (out []fault) {
	pkg := map[string]int{}
	for _, f := range tr.files {
		if f.gen {
			continue
		}
		fileLimit, funcLimit := maxFile, maxFunc
		if f.test {
			fileLimit, funcLimit = maxTestFile, maxTestFunc
		} else {
			pkg[f.dir] += f.lines
		}
		if f.lines > fileLimit {
			out = append(out, fault{f.path, f.path, fmt.Sprintf("%d lines, the limit is %d: split by verb or concept", f.lines, fileLimit)})
		}
		for _, d := range f.ast.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			if n := tr.fset.Position(fn.End()).Line - tr.fset.Position(fn.Pos()).Line + 1; n > funcLimit {
				flt := tr.fault(f, fn, "%s has %d lines, the limit is %d", fn.Name.Name, n, funcLimit)
				flt.key += ":" + fn.Name.Name
				out = append(out, flt)
			}
		}
	}
	for dir, n := range pkg {
		if n > maxPackage {
			out = append(out, fault{dir, dir, fmt.Sprintf("%d lines without tests, the limit is %d", n, maxPackage)})
		}
	}
	return out
}

func pure(tr *tree) (out []fault) {
	banned := map[string][]string{
		"time": {"Now", "After", "AfterFunc", "NewTimer", "NewTicker", "Tick", "Sleep", "Since", "Until"},
		"sync": {"Mutex", "RWMutex", "Cond", "Map", "WaitGroup"},
	}
	for _, f := range tr.production() {
		if k := f.kind(); k != "engine" && k != "value" {
			continue
		}
		for _, target := range f.targets {
			first, rest, _ := strings.Cut(target, "/")
			if first == "os" || first == "syscall" || first == "net" && rest != "netip" && rest != "url" || strings.HasPrefix(target, "golang.org/x/sys") {
				out = append(out, tr.fault(f, f.ast.Name, "imports %s", target))
			}
		}
		out = append(out, tr.uses(f, banned)...)
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if g, ok := n.(*ast.GoStmt); ok {
				out = append(out, tr.fault(f, g, "starts a goroutine"))
			}
			return true
		})
	}
	return out
}

// uses finds selectors of the packages and names in banned, whatever the import is called in f.
func (tr *tree) uses(f *file, banned map[string][]string) (out []fault) {
	ast.Inspect(f.ast, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		id, ok := sel.X.(*ast.Ident)
		if ok && slices.Contains(banned[f.imports[id.Name]], sel.Sel.Name) {
			flt := tr.fault(f, sel, "uses %s.%s", f.imports[id.Name], sel.Sel.Name)
			flt.key += ":" + id.Name + "." + sel.Sel.Name
			out = append(out, flt)
		}
		return true
	})
	return out
}

func noInit(tr *tree) (out []fault) {
	for _, f := range tr.files {
		for _, d := range f.ast.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				out = append(out, tr.fault(f, fn, "has an init function"))
			}
		}
	}
	return out
}

func noOutput(tr *tree) (out []fault) {
	banned := map[string][]string{
		"fmt": {"Print", "Printf", "Println"}, "os": {"Exit", "Stdout", "Stderr"},
		"log": {"Print", "Printf", "Println", "Fatal", "Fatalf", "Fatalln"},
	}
	for _, f := range tr.production() {
		if k := f.kind(); k != "cmd" && k != "test" && k != "bench" {
			out = append(out, tr.uses(f, banned)...)
		}
	}
	return out
}

func noNetIP(tr *tree) (out []fault) {
	banned := map[string][]string{"net": {"IP", "IPNet", "IPMask", "IPAddr", "ParseIP", "ParseCIDR", "IPv4", "CIDRMask"}}
	for _, f := range tr.files {
		out = append(out, tr.uses(f, banned)...)
	}
	return out
}

func noUnsafe(tr *tree) (out []fault) {
	for _, f := range tr.production() {
		if f.imports["unsafe"] != "" && f.kind() != "edge" {
			out = append(out, tr.fault(f, f.ast.Name, "imports unsafe"))
		}
	}
	return out
}

func goroutines(tr *tree) (out []fault) {
	for _, f := range tr.production() {
		commented := map[int]bool{} // lines that hold a comment
		for _, group := range f.ast.Comments {
			for l := tr.fset.Position(group.Pos()).Line; l <= tr.fset.Position(group.End()).Line; l++ {
				commented[l] = true
			}
		}
		k := f.kind()
		may := slices.Contains(mayStartGo, f.name()) || k == "cmd" || k == "test" || k == "bench"
		ast.Inspect(f.ast, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				out = append(out, tr.fault(f, n, "go statement: use WaitGroup.Go or errgroup, and wait for it"))
			case *ast.CallExpr:
				sel, ok := n.Fun.(*ast.SelectorExpr)
				if !ok || sel.Sel.Name != "Go" || len(n.Args) != 1 {
					return true
				}
				line := tr.fset.Position(n.Pos()).Line
				if !may {
					out = append(out, tr.fault(f, n, "starts a goroutine in package %s", f.dir))
				} else if !commented[line] && !commented[line-1] && !commented[line-2] {
					out = append(out, tr.fault(f, n, "starts a goroutine; no comment says who stops it"))
				}
			}
			return true
		})
	}
	return out
}

var citation = regexp.MustCompile(`\bspec/[0-9A-Za-z_-]+\.md(#[0-9A-Za-z_-]+)?`)

// cited lists what the comments of f cite of spec/, with the place.
func (tr *tree) cited(f *file) map[string]fault {
	out := map[string]fault{}
	for _, group := range f.ast.Comments {
		for _, c := range group.List {
			for _, m := range citation.FindAllString(c.Text, -1) {
				out[m] = tr.fault(f, c, "cites %s, which does not exist", m)
			}
		}
	}
	return out
}

func specCitations(tr *tree) (out []fault) {
	for _, f := range tr.files {
		for m, flt := range tr.cited(f) {
			name, slug, anchored := strings.Cut(m, "#")
			if slugs, ok := tr.sections[name]; !ok || anchored && !slugs[slug] {
				out = append(out, flt)
			}
		}
	}
	return out
}

func specProof(tr *tree) (out []fault) {
	proven := map[string]bool{}
	for _, f := range tr.files {
		for m := range tr.cited(f) {
			proven[m] = proven[m] || f.test
		}
	}
	for _, m := range tr.musts {
		if !proven[m.anchor] {
			out = append(out, fault{m.anchor, m.place, "says MUST; no test cites " + m.anchor})
		}
	}
	return out
}

func fuzzed(tr *tree) (out []fault) {
	called := map[string]bool{} // "dir Name": mentioned inside a Fuzz function of that package
	for _, f := range tr.files {
		for _, d := range f.ast.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || !f.test || !strings.HasPrefix(fn.Name.Name, "Fuzz") {
				continue
			}
			ast.Inspect(fn, func(n ast.Node) bool {
				if id, ok := n.(*ast.Ident); ok {
					called[f.dir+" "+id.Name] = true
				}
				return true
			})
		}
	}
	for _, f := range tr.production() {
		for _, d := range f.ast.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if ok && fn.Recv == nil && strings.HasPrefix(fn.Name.Name, "Parse") && slices.Contains(parsing, f.name()) && !called[f.dir+" "+fn.Name.Name] {
				out = append(out, tr.fault(f, fn, "%s has no Fuzz target", fn.Name.Name))
			}
		}
	}
	return out
}

var (
	todo         = regexp.MustCompile(`\b(TODO|FIXME)\b`)
	numberedTodo = regexp.MustCompile(`TODO\(#(\d+|number)\)`)
)

func todos(tr *tree) (out []fault) {
	for _, f := range tr.files {
		for _, group := range f.ast.Comments {
			for _, c := range group.List {
				if todo.MatchString(numberedTodo.ReplaceAllString(c.Text, "")) {
					out = append(out, tr.fault(f, c, "a TODO without a number"))
				}
			}
		}
	}
	return out
}

func noSleep(tr *tree) (out []fault) {
	for _, f := range tr.files {
		if f.test {
			out = append(out, tr.uses(f, map[string][]string{"time": {"Sleep"}})...)
		}
	}
	return out
}

func skips(tr *tree) (out []fault) {
	for _, f := range tr.files {
		if !f.test {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			sel, ok := call.Fun.(*ast.SelectorExpr)
			if ok && (sel.Sel.Name == "SkipNow" || sel.Sel.Name == "Skip" && len(call.Args) == 0) {
				out = append(out, tr.fault(f, call, "skips without a reason"))
			}
			return true
		})
	}
	return out
}

// TestRulesBite holds a tree in which every rule is broken: a rule that finds nothing in it finds nothing anywhere.
func TestRulesBite(t *testing.T) {
	long := "package path\n\nfunc long() {\n" + strings.Repeat("\n", maxFile) + "}\n"
	bad := fstest.MapFS{
		"go.mod":                     {Data: []byte("module m.example/w\n")},
		"spec/50-path.md":            {Data: []byte("# Path\n```\n# not a heading, MUST not count\n```\n## Which way?\nA node MUST try.\n")},
		"internal/path/long.go":      {Data: []byte(long)},
		"internal/path/path.go":      {Data: []byte("// Copyright someone.\npackage path\nimport (\"m.example/w/internal/route\"; \"os\"; clock \"time\"; \"unsafe\")\nfunc init() { clock.Now(); go f() }\n")},
		"internal/path/path_test.go": {Data: []byte("package path\nimport \"time\"\nfunc TestX(t *testing.T) { time.Sleep(1); t.Skip() }\n")},
		"internal/node/node.go":      {Data: []byte("package node\nimport \"m.example/w/internal/testnet\"\nfunc Run() { wg.Go(nil) }\n")},
		"internal/udp/udp.go": {Data: []byte("// Package udp cites spec/50-path.md#nowhere. TODO: more.\npackage udp\n" +
			"import (\"fmt\"; \"net\"; . \"m.example/w/internal/a\"; \"m.example/w/internal/b\"; \"m.example/w/internal/c\"; \"m.example/w/internal/d\"; \"m.example/w/internal/e\")\n" +
			"var Here net.IP\nfunc f() { fmt.Println() }\n")},
		"internal/wire/wire.go": {Data: []byte("// Package wire is read.\npackage wire\nfunc ParseThing(b []byte) {}\n")},
	}
	tr, err := load(bad)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rules {
		faults := r.check(tr)
		if len(faults) == 0 {
			t.Errorf("rule %q finds no fault in a tree that breaks it", r.name)
		}
		for _, f := range faults {
			if f.place == "" || f.text == "" {
				t.Errorf("rule %q: a fault without place or text: %+v", r.name, f)
			}
		}
	}
	if got := tr.musts; len(got) != 1 || got[0] != (must{"spec/50-path.md:6", "spec/50-path.md#which-way"}) {
		t.Errorf("musts = %v, want the one outside of the code block", got)
	}
}
