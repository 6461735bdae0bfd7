"""The list of negative cases. A case is a function that changes an Attempt; its decorator says the rule's section of
RFC 8446, what is wrong, and how the server must end the connection."""

CASES = []
OUTCOMES = {'closed': ['closed', 'reset']}


class Case:
    def __init__(self, section, name, expected, change):
        self.section = section
        self.name = name
        self.expected = expected
        self.change = change


def case(section, name, *expected):
    """`expected`: the names of the alerts that may answer, or `closed` where none is sent."""

    def register(change):
        outcomes = [outcome for word in expected for outcome in OUTCOMES.get(word, ['alert ' + word])]
        CASES.append(Case(section, name, outcomes, change))
        return change

    return register
