package kafka

// keys of the APIs that are more to this package than their layout.
const (
	keyProduce          int16 = 0
	keyFetch            int16 = 1
	keyMetadata         int16 = 3
	keyOffsetFetch      int16 = 9
	keyFindCoordinator  int16 = 10
	keySaslHandshake    int16 = 17
	keyAPIVersions      int16 = 18
	keyCreateTopics     int16 = 19
	keyGroupHeartbeat   int16 = 68
	keyTopicPartitions  int16 = 75
	keyShareHeartbeat   int16 = 76
	keyShareFetch       int16 = 78
	keyShareAcknowledge int16 = 79
	keyStreamsHeartbeat int16 = 88
)

// anyTopic stands for all topics: only rules for all topics match it, for it is no
// name that a topic can have.
const anyTopic = "*"

// emptyGroup stands for the group that has an empty name, which brokers know too: a
// rule that names groups has to be asked about it.
const emptyGroup = "\x00"

// topicID is the id that a cluster gives a topic; it is never given again.
type topicID [16]byte

// item is one thing that a request is about: it is judged by itself.
type item struct {
	topic, group, transaction string
	id                        topicID // the topic is named by it
	byID                      bool
	unknown                   bool // nobody knows what topic it is
	element                   int32
	code                      int16 // it is denied with; 0: it is not
}

// items returns what a request is about; there is always one at least.
func (s *scan) items(key int16) []item {
	list := make([]item, 0, max(1, len(s.marks)))
	var groups, transactions map[int32]string // of elements, -1: of the message
	set := func(to *map[int32]string, m *mark, text string) {
		if *to == nil {
			*to = map[int32]string{}
		}
		(*to)[m.element] = text
	}
	var named map[int32]bool // elements of which the topic has a name
	for i := range s.marks {
		m := &s.marks[i]
		text := string(m.text)
		if m.kind == kindGroup && text == "" {
			text = emptyGroup
		}
		switch {
		case m.null && m.kind != kindGroup:
		case m.kind == kindTopic:
			if named == nil {
				named = map[int32]bool{}
			}
			named[m.element] = true
			list = append(list, item{topic: text, element: m.element})
		case m.kind == kindTopicRegex:
			if text != "" { // what it matches is the broker's to say
				list = append(list, item{topic: anyTopic, element: m.element})
			}
		case m.kind == kindGroup:
			set(&groups, m, text)
		case m.kind == kindTransaction:
			set(&transactions, m, text)
		case m.kind == kindCoordinator:
			switch s.keyType {
			case 0:
				set(&groups, m, text)
			case 1:
				set(&transactions, m, text)
			default:
				list = append(list, item{element: m.element})
			}
		case m.kind == kindResource: // neither a topic nor a group
			list = append(list, item{element: m.element})
		}
	}
	for i := range s.marks {
		m := &s.marks[i]
		if m.kind != kindTopicID || topicID(m.text) == (topicID{}) && named[m.element] {
			continue
		}
		list = append(list, item{byID: true, id: topicID(m.text), element: m.element})
	}
	for i := range s.lists {
		if l := &s.lists[i]; l.structs && s.everything(key, l) {
			list = append(list, item{topic: anyTopic, element: l.parent})
		}
	}
	list = s.place(list, groups, transactions)
	if len(list) == 0 {
		list = append(list, item{element: -1})
	}
	return list
}

// everything reports whether a list that names nothing stands for all topics, in
// requests whose answer is not filtered.
func (s *scan) everything(key int16, l *list) bool {
	switch key {
	case keyMetadata, keyOffsetFetch, keyGroupHeartbeat:
		return false // filtered; filtered; what was said before
	case keyTopicPartitions:
		return l.n == 0
	}
	return l.null
}

// place gives items the groups and transactional ids of what they are in. Those
// in which nothing else is named are items of their own.
func (s *scan) place(list []item, groups, transactions map[int32]string) []item {
	if len(groups) == 0 && len(transactions) == 0 {
		return list
	}
	covered := map[int32]bool{} // something is named further in
	for i := range list {
		it := &list[i]
		it.group, _ = s.around(it.element, groups)
		it.transaction, _ = s.around(it.element, transactions)
		for e := it.element; ; e = s.parent(e) {
			covered[e] = true
			if e < 0 {
				break
			}
		}
	}
	for i := range s.marks {
		for e := s.marks[i].element; e >= 0; {
			e = s.parent(e)
			covered[e] = true
		}
	}
	for i := range s.marks {
		m := &s.marks[i]
		group, isGroup := groups[m.element]
		transaction, isTransaction := transactions[m.element]
		if !isGroup && !isTransaction || covered[m.element] {
			continue
		}
		covered[m.element] = true
		if !isGroup {
			group, _ = s.around(m.element, groups)
		}
		if !isTransaction {
			transaction, _ = s.around(m.element, transactions)
		}
		list = append(list, item{group: group, transaction: transaction, element: m.element})
	}
	return list
}

func (s *scan) parent(e int32) int32 { return s.lists[s.elements[e].list].parent }

// around finds what is said of an element or of what it is in.
func (s *scan) around(e int32, of map[int32]string) (string, bool) {
	for {
		if text, ok := of[e]; ok || e < 0 {
			return text, ok
		}
		e = s.parent(e)
	}
}

// denied returns the elements that a request must not have, and whether anything
// else is left of it: elements with an item that is denied, and those in which
// every item is.
func (s *scan) denied(list []item) (drop []bool, left bool) {
	drop = make([]bool, len(s.elements))
	kept := make([]bool, len(s.elements))
	for i := range list {
		it := &list[i]
		if it.code != 0 && it.element >= 0 {
			drop[it.element] = true
		}
	}
	for i := range list {
		it := &list[i]
		if it.code != 0 {
			continue
		}
		if it.element < 0 {
			left = true
		} else if !drop[it.element] {
			left = true
			for e := it.element; e >= 0; e = s.parent(e) {
				kept[e] = true
			}
		}
	}
	for i := range list {
		if list[i].code == 0 || list[i].element < 0 {
			continue
		}
		for e := s.parent(list[i].element); e >= 0 && !kept[e]; e = s.parent(e) {
			drop[e] = true
		}
	}
	return drop, left
}
