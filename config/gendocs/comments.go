package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/sluice-metrics/sluice/internal/strictyaml"
)

const module = "github.com/sluice-metrics/sluice/"

// comments finds what is written about fields in the sources below root.
type comments struct {
	root     string
	packages map[string]*sources // by package path
}

// sources is what is read out of the sources of a package.
type sources struct {
	fields map[string]string   // "Type.Field" to its comment
	words  map[string][]string // name of a type to its constants that are text
}

// of returns the comment of a field as a sentence for people who know the file and not
// the program. It is an error when there is none. ok is false for keys that are left out.
func (c *comments) of(f strictyaml.Field) (text string, ok bool, err error) {
	name := f.Owner.Name() + "." + f.Name
	path, own := strings.CutPrefix(f.Owner.PkgPath(), module)
	if !own {
		text, known := foreign[name]
		if !known {
			return "", false, fmt.Errorf("%s of %s (%s) has no text in foreign.go", name, f.Owner.PkgPath(), f.Key)
		}
		return text, text != "", nil
	}
	p, err := c.parsed(path)
	if err != nil {
		return "", false, err
	}
	text = p.fields[name]
	if text == "" {
		return "", false, fmt.Errorf("%s.%s (%s) has no comment", path, name, f.Key)
	}
	return sentence(text, f), true, nil
}

// words lists the constants of a type of text, in the order of the source.
func (c *comments) words(path, name string) ([]string, error) {
	p, err := c.parsed(path)
	if err != nil {
		return nil, err
	}
	return p.words[name], nil
}

func (c *comments) parsed(path string) (*sources, error) {
	if c.packages[path] == nil {
		p, err := parsePackage(filepath.Join(c.root, path))
		if err != nil {
			return nil, err
		}
		c.packages[path] = p
	}
	return c.packages[path], nil
}

func parsePackage(dir string) (*sources, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return nil, err
	}
	s := &sources{fields: map[string]string{}, words: map[string][]string{}}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return nil, fmt.Errorf("read comments: %w", err)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			switch spec := n.(type) {
			case *ast.TypeSpec:
				s.addFields(spec)
				return false
			case *ast.ValueSpec:
				s.addWords(spec)
				return false
			case *ast.FuncDecl:
				return false
			}
			return true
		})
	}
	return s, nil
}

func (s *sources) addFields(spec *ast.TypeSpec) {
	t, ok := spec.Type.(*ast.StructType)
	if !ok {
		return
	}
	for _, field := range t.Fields.List {
		for _, name := range field.Names {
			s.fields[spec.Name.Name+"."+name.Name] = field.Doc.Text() + field.Comment.Text()
		}
	}
}

func (s *sources) addWords(spec *ast.ValueSpec) {
	t, ok := spec.Type.(*ast.Ident)
	if !ok {
		return
	}
	for _, v := range spec.Values {
		if literal, ok := v.(*ast.BasicLit); ok && literal.Kind == token.STRING {
			if word, err := strconv.Unquote(literal.Value); err == nil {
				s.words[t.Name] = append(s.words[t.Name], word)
			}
		}
	}
}

// subject matches a comment that begins with a name and its verb. "is" goes with the
// name, other verbs stay.
var subject = regexp.MustCompile(`^(\w+) (?:(?:is|are) (.*)|([a-z]+s .*))$`)

// sentence turns "MaxDisk is the bound" into "The bound", and names of sibling fields
// into their keys.
func sentence(text string, f strictyaml.Field) string {
	text = strings.Join(strings.Fields(text), " ")
	if m := subject.FindStringSubmatch(text); m != nil && m[1] == f.Name {
		text = m[2] + m[3]
	}
	siblings, _ := strictyaml.Fields(reflect.New(f.Owner).Elem())
	for _, s := range siblings {
		if strings.IndexFunc(s.Name[min(1, len(s.Name)):], unicode.IsUpper) < 0 {
			continue // an ordinary word
		}
		text = regexp.MustCompile(`\b`+s.Name+`\b`).ReplaceAllString(text, "`"+s.Key+"`")
	}
	first, size := utf8.DecodeRuneInString(text)
	return string(unicode.ToUpper(first)) + text[size:]
}
