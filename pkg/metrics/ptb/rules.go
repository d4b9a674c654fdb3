package ptb

import (
	"fmt"
	"regexp"
	"strings"
)

// rewriting says what becomes of the matched text.
type rewriting uint8

const (
	keep      rewriting = iota // the token is the text
	drop                       // no token
	hyphens                    // soft hyphens go
	closing                    // straight quotes close
	opening                    // straight quotes open
	ampersand                  // the entity of & becomes &
	dash                       // "--"
	dashes                     // three or four hyphens are a dash
	ellipsis                   // "..."
	fraction                   // the characters for fractions are written out
	currency                   // signs of currency become those of the Treebank
	spaces                     // spaces inside become no-break spaces
	brackets                   // round brackets as the Treebank writes them
	phone                      // likewise, and spaces
	literal                    // the text given by the rule
	repeat                     // the period of the token stands for the end of the sentence, too
	acronym                    // likewise, but a single letter gives its period away
	lineEnd                    // no token; the line ends
)

// rule is one shape of token.
type rule struct {
	pattern string    // in the syntax of package regexp, with names in braces; case is folded outside of classes
	ahead   string    // what must follow and is not taken
	as      rewriting // of the text
	text    string    // for literal
	split   int       // characters at the end that are left for the next token
}

// anyOf joins alternatives.
func anyOf(words ...string) string { return "(?:" + strings.Join(words, "|") + ")" }

// words makes a pattern of a list, in any case of letters.
func words(list string) string { return anyOf(strings.Fields(regexp.QuoteMeta(list))...) }

// exact makes a pattern of a list whose first letters are taken in that case only.
func exact(list string) string {
	var out []string
	for _, w := range strings.Fields(list) {
		out = append(out, "["+w[:1]+"]"+regexp.QuoteMeta(w[1:]))
	}
	return anyOf(out...)
}

// Words that end in a period without ending a sentence.
var (
	// Followed by a small letter as a rule; before a capital the sentence ends, too: months, days of the week, states,
	// companies, what comes behind a name.
	small = anyOf(words(`
		al ala apr ariz assn aug bancorp bhd bldg blvd bros calif co colo conn corp cos ct dak dec ed.d esq est
		etc ext feb fla fri ga inc ind intl jan jr jul jun kan kans ky ltd mar md mich minn mo mon mont neb nev
		nov oct okla penn ph.d plc rd rt sep sept seq sq sr sys tel tenn
		thu thurs tue tues univ va vt wed wis wisc wyo`),
		exact("Ark Az Del Ill La Mass Miss Ore Pa Tex Wash"), `p?pt[ye]s?`)

	// Followed by a capital as a rule; the sentence goes on: titles, first names, offices.
	big = anyOf(words(`
		a.k.a adj adm adv alex assoc asst atty attys ave brig capt cf cie cmdr col comdr cpl dept det dr drs
		elec ens ft gen gov govs hon insp invt jos lieut lt maj messrs mlle mme mr mrs ms msgr mt natl
		pfc ph pres prof profs pvt rep reps rev sen sens sfc sgt spc st ste supt supts treas vs wm`),
		exact("Miss v"), `m[ft]g`)

	// Only before a number.
	counted = words("art bldg ca fig figs no nos op pp prop")

	// After an acronym these words, with a capital, begin a sentence.
	starters = anyOf(exact(`
		A About According Additionally After An As At But Earlier He Her Here However If In It Last Many More
		Mr. Ms. Now Once One Other Our She Since So Some Such That The Their Then There These They This We What
		When While Yet You`), `{tag}`)

	// Endings of the names of files.
	extensions = words(`
		bat bmp c cgi class cpp dll doc docx exe gif gz h htm html jar java jpeg jpg mov mp3 pdf php pl png ppt
		ps py sql tar txt wav x xml zip`)
)

// shapes are the names that patterns use. A name may use names that stand above it.
var shapes = [][2]string{
	{"let", letters}, {"dig", digits}, {"cap", capitals}, {"sign", signs},

	// Blanks and ends of lines.
	{"sp", `[ \t\x{A0}\x{2000}-\x{200A}\x{3000}]`},
	{"nl", `(?:\r|\r?\n|[\x{2028}\x{2029}\v\f\x{85}])`},
	{"gap", `(?:{sp}|{nl})`},

	// Mark-up: <a href="x">, </a>, <!-- -->.
	{"name", `[A-Za-z][A-Za-z0-9_:.\-]*`},
	{"tag", `<(?:[!?][A-Za-z\-][^>\r\n]*|/{name}|` +
		`{name}(?: +(?:{name}|{name} *= *(?:'[^']*'|"[^"]*")))* */?) *>`},
	{"amp", `&amp;`},

	// Words.
	{"apos", `(?:['\x{92}\x{2019}]|&apos;)`},
	{"tick", "(?:{apos}|[`\\x{91}\\x{2018}\\x{201B}])"},
	{"letter", `(?:[{let}{sign}]|&[aeiouAEIOU](?:acute|grave|uml);)`},
	{"digit", `[{dig}]`},
	{"alnum", `[{let}[:digit:]{dig}]`},
	{"word", `{letter}(?:{letter}|{digit})*(?:[.!?]{letter}(?:{letter}|{digit})*)*`},
	{"hyphen", `[\-_\x{58A}\x{2010}\x{2011}]`},

	// Numbers.
	{"num", `(?:{digit}+|{digit}*(?:[.:,\x{AD}\x{66B}\x{66C}]{digit}+)+)`},

	// Abbreviations: of letters with periods, and the lists above.
	{"dotted", `(?:(?:Canada|Sino|Korean|EU|Japan|non)-U\.S|U\.S\.-(?:U\.K|U\.S\.S\.R))`},
	{"acro", `(?:[A-Za-z](?:\.[A-Za-z])*|{dotted})`},
	{"acros", `(?:[A-Za-z](?:\.[A-Za-z])+|{dotted})`},
	{"small", small + `\.`},
	{"big", anyOf(big, `{acro}`)},

	// What no address of the web has.
	{"out", `^ \t\n\f\r"<>|`},
	{"mail", `[{out}(){}\x{A0}]`},
	{"domain", `[{out}(){}.\x{A0}]`},

	{"inner", `[,;:\x{3001}]`},
	{"dots", `(?:\.{3,5}|(?:\.[ \x{A0}]){2,4}\.|[\x{85}\x{2026}])`},
	{"file", `(?:{letter}|{digit})+(?:\.(?:{letter}|{digit})+)*\.` + extensions},
	{"smiley", `[<>]?[:;=][\-o*']?[()DPdpO\\{@|\[\]]`},
	{"hyphened", `[A-Za-z0-9][A-Za-z0-9.,\x{AD}]*(?:-(?:[A-Za-z0-9\x{AD}]+|{acros}\.))+`},
	{"compound", `(?:[dDoOlL]{tick}{alnum})?{alnum}+(?:{hyphen}(?:[dDoOlL]{tick}{alnum})?{alnum}+)*`},
	{"initials", `[A-Z]+(?:(?:[+&]|{amp})[A-Z]+)+`},
}

// rules are the shapes of tokens. Where two match the same text, the first counts.
var rules = []rule{
	{pattern: `c\+\+|(?:c|f)#|<<|>>`},

	// Words written together.
	{pattern: `cannot|'twas`, split: 3},
	{pattern: `'tis|gonna|gotta|lemme|gimme|wanna`, split: 2},

	{pattern: `{tag}`, as: spaces},
	{pattern: `&(?:MD|mdash|ndash);|[\x{96}\x{97}\x{2013}-\x{2015}]`, as: dash},
	{pattern: `{amp}`, as: ampersand},
	{pattern: `&(?:HT|TL|UR|LR|QC|QL|QR|odq|cdq|#[0-9]+);`},

	// Words, and clitics at their end.
	{pattern: `{word}`, ahead: `{apos}(?:[msdMSD]|re|ve|ll)`, as: hyphens},
	{pattern: `[A-Za-z\x{AD}]*[A-MO-Za-mo-z]\x{AD}*`, ahead: `n{tick}t`, as: hyphens},
	{pattern: `{word}`, as: hyphens},
	{pattern: `{apos}(?:em|cause|till?|n{apos}?|[2-9]0s)|(?:[lLdDjJ]|ol|somethin|Dunkin){apos}|O{tick}o|` +
		`(?:nor'easter|c'mon|e'er|ev'ry|li'l|nat'l|s'mores|cont'd\.?)|` + // with the straight apostrophe only
		`[A-HJ-XZn]{tick}[{let}]{2}[{let}]*|[{let}]+[aeiouyAEIOUY]{tick}[aeiouA-Z][{let}]*`}, // O'Brien, Hawai'i
	{pattern: `y{apos}`, ahead: `[{let}]`},

	// The web.
	{pattern: `https?://[{out}(){}]+[{out}(){},.!?\-]`},
	{pattern: `(?:www\.(?:[{out}(){},.!?]+\.)+[a-zA-Z]{2,4}|` +
		"(?:[{out}(){}`'.!?$,-_]+\\.)+(?:com|net|org|edu))" + // , to _ is a range: it has digits and capitals
		`(?:/[{out}()]+[{out}(){},.!?\-])?`},
	{pattern: `(?:<|&lt;)?[a-zA-Z0-9]{mail}*@(?:{domain}+\.)*{domain}+(?:>|&gt;)?`},
	{pattern: `@[a-zA-Z_][a-zA-Z_0-9]*|#{letter}+`},

	{pattern: `{apos}(?:[msdMSD]|re|ve|ll)`, ahead: `[^A-Za-z]`, as: closing},
	{pattern: `n{tick}t`, ahead: `[^A-Za-z]`, as: closing},

	// Numbers.
	{pattern: `{digit}{1,2}[\-/]{digit}{1,2}[\-/]{digit}{2,4}`},
	{pattern: `[\-+]?{num}`, as: hyphens},
	{pattern: `[\x{207A}\x{207B}\x{208A}\x{208B}]?` +
		`(?:[\x{2070}\x{B9}\x{B2}\x{B3}\x{2074}-\x{2079}]+|[\x{2080}-\x{2089}]+)`},
	{pattern: `(?:{digit}{1,4}[\- \x{A0}])?{digit}{1,4}(?:\\?/|\x{2044}){digit}{1,4}`, as: spaces},
	{pattern: `[\x{BC}-\x{BE}\x{2153}-\x{215E}]`, as: fraction},

	{pattern: `-(?:RRB|LRB|RCB|LCB|RSB|LSB)-|C\.D\.s|pro-|anti-|S(?:&|&amp;)P-500|S(?:&|&amp;)Ls|Cap{apos}n|c{apos}est`,
		as: ampersand},
	{pattern: `[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}(?:\\?/[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}){1,2}`},
	{pattern: `[A-Z]*\$|#`},
	{pattern: `[\x{A2}-\x{A5}\x{80}\x{20A0}\x{20A4}\x{20AC}\x{60B}\x{E3F}\x{FFE0}\x{FFE1}\x{FFE5}\x{FFE6}]`, as: currency},

	// Abbreviations, and what follows them.
	{pattern: `{acro}\.`, ahead: `{gap}+` + starters + `{gap}`, as: acronym},
	{pattern: counted + `\.`, ahead: `{gap}?{digit}`},
	{pattern: `(?:pt[eyEY]|co)\.`, ahead: `{sp}(?:ltd|lim)`},
	{pattern: `{small}`, ahead: `{gap}(?:{gap}|[{cap}]|{tag})`, as: repeat},
	{pattern: `{small}`, ahead: `(?s:..)`},
	{pattern: `{small}`, as: repeat},
	{pattern: `{big}\.`},
	{pattern: `{big}`, ahead: `{sp}`},
	{pattern: `{acro}`, ahead: `{gap}`},
	{pattern: `{apos}[0-9][0-9]`, ahead: `{gap}`},
	{pattern: `{file}`, ahead: `{gap}|[.?!,]`},
	{pattern: `{word}\.`, ahead: `{inner}`, as: hyphens},
	{pattern: `(?:\([0-9]{2,3}\)[ \x{A0}]?|(?:\+\+?)?(?:[0-9]{2,4}[\- \x{A0}])?[0-9]{2,4}[\- \x{A0}])` +
		`[0-9]{3,4}[\- \x{A0}]?[0-9]{3,5}|(?:(?:\+\+?)?[0-9]{2,4}\.)?[0-9]{2,4}\.[0-9]{3,4}\.[0-9]{3,5}`, as: phone},

	// Quotes.
	{pattern: `"|&quot;`, ahead: `[A-Za-z0-9$]`, as: opening},
	{pattern: `"|&quot;`, as: closing},
	{pattern: `\x{7F}`, as: drop},
	{pattern: `<|&lt;`, as: literal, text: "<"},
	{pattern: `>|&gt;`, as: literal, text: ">"},

	{pattern: `{smiley}`, ahead: `[^A-Za-z0-9]`, as: brackets},
	{pattern: `[\^x=~<>]\.\[\^x=[^<]*<>]|[\-\^x=~<>']_[\-\^x=~<>']|\([\-\^x=~<>'][_.]?[\-\^x=~<>']\)|` +
		"\\([\\^x=~<>']-[\\^x=~<>'`]\\)", as: brackets},

	// Brackets and marks.
	{pattern: `\{`, as: literal, text: "-LCB-"},
	{pattern: `\}`, as: literal, text: "-RCB-"},
	{pattern: `\[`, as: literal, text: "-LSB-"},
	{pattern: `\]`, as: literal, text: "-RSB-"},
	{pattern: `\(`, as: literal, text: "-LRB-"},
	{pattern: `\)`, as: literal, text: "-RRB-"},
	{pattern: `-+`, as: dashes},
	{pattern: `{dots}`, as: ellipsis},
	{pattern: `@+|#+|_+`},
	{pattern: `\*+|(?:\\\*){1,3}`},
	{pattern: `{inner}`},
	{pattern: `[?!]+`},
	{pattern: `[.\x{A1}\x{BF}\x{37E}\x{589}\x{61F}\x{6D4}\x{700}-\x{702}\x{7FA}\x{3002}]`},
	{pattern: `=`},
	{pattern: `/`},

	// Words with hyphens, apostrophes and ampersands inside.
	{pattern: `{hyphened}\.`, ahead: `{inner}`, as: hyphens},
	{pattern: `{hyphened}`, as: hyphens},
	{pattern: `{compound}\.`, ahead: `{inner}`},
	{pattern: `{compound}`},
	{pattern: `{initials}\.`, ahead: `{inner}`, as: ampersand},
	{pattern: `{initials}`, as: ampersand},

	{pattern: `'`, ahead: `[A-Za-z][^ \t\n\r\x{A0}]`, as: opening},
	{pattern: `{apos}(?:[msdMSD]|re|ve|ll)|n{tick}t`, as: closing},
	{pattern: "(?:{apos}|''|[`\\x{2018}-\\x{201F}\\x{91}-\\x{94}\\x{2039}\\x{203A}\\x{AB}\\x{BB}]{1,2})", as: closing},
	{pattern: miscellaneous},
	{pattern: `\x{0}|{sp}+|[\x{200B}\x{200E}\x{200F}\x{FEFF}]|&nbsp;`, as: drop},
	{pattern: `{nl}`, as: lineEnd},
	{pattern: `[^\n]`, as: drop}, // the reference warns of characters that it does not know, once
}

// miscellaneous are characters that stand alone: signs, symbols, punctuation of other scripts.
const miscellaneous = `[%&+\\\^|~` +
	`\x{A6}-\x{A9}\x{AC}\x{AE}-\x{B1}\x{B4}\x{B6}-\x{B8}\x{D7}\x{F7}\x{387}\x{5BE}\x{5C0}\x{5C3}` +
	`\x{5C6}\x{5F3}\x{5F4}\x{600}-\x{603}\x{606}-\x{60A}\x{60C}\x{614}\x{61B}\x{61E}\x{66A}\x{66D}` +
	`\x{703}-\x{70D}\x{7F6}-\x{7F8}\x{964}\x{965}\x{E4F}\x{1FBD}\x{2016}\x{2017}\x{2020}-\x{2023}` +
	`\x{2030}-\x{2038}\x{203B}\x{203E}-\x{2042}\x{2044}\x{207A}-\x{207E}\x{208A}-\x{208E}\x{2100}\x{2101}` +
	`\x{2103}-\x{2106}\x{2108}\x{2109}\x{2114}\x{2116}-\x{2118}\x{211E}-\x{2123}\x{2125}\x{2127}\x{2129}` +
	`\x{212E}\x{213A}\x{213B}\x{2140}-\x{2144}\x{214A}-\x{214D}\x{214F}\x{2190}-\x{2BFF}\x{3012}\x{30FB}` +
	`\x{FF01}-\x{FF0F}\x{FF1A}-\x{FF20}\x{FF3B}-\x{FF40}\x{FF5B}-\x{FF65}]`

var nameInBraces = regexp.MustCompile(`\{[a-z]+\}`)

// expander replaces names in braces by what they stand for.
func expander() func(string) string {
	known := map[string]string{}
	expand := func(pattern string) string {
		return nameInBraces.ReplaceAllStringFunc(pattern, func(name string) string {
			text, ok := known[name]
			if !ok {
				panic(fmt.Sprintf("pattern %q: %s is not defined above", pattern, name))
			}
			return text
		})
	}
	for _, shape := range shapes {
		known["{"+shape[0]+"}"] = expand(shape[1])
	}
	return expand
}
