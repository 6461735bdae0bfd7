"""Negative cases of TLS 1.3 against a server.
    main.py --list                                the cases as JSON
    main.py PORT_ADDRESS DIRECT_ADDRESS SERVER_NAME CERTIFICATES
                                                  makes the attempt of each case number on standard input (`none`: one in
                                                  which nothing is wrong), and prints a line of JSON for each; addresses
                                                  as host:port
"""

import json
import sys

import cases_after  # noqa: F401
import cases_authentication  # noqa: F401
import cases_extensions  # noqa: F401
import cases_hello  # noqa: F401
import cases_key_share  # noqa: F401
import cases_records  # noqa: F401
from attempt import Attempt, Certificates, perform
from registry import CASES

UNCHANGED = 'none'


def address(text):
    host, port = text.rsplit(':', 1)
    return host, int(port)


def run(port_address, direct_address, server_name, directory):
    addresses = {'port': address(port_address), 'direct': address(direct_address)}
    certificates = Certificates(directory)
    for line in sys.stdin:
        attempt = Attempt()
        if line.strip() != UNCHANGED:
            CASES[int(line)].change(attempt)
        print(json.dumps(perform(attempt, addresses, server_name, certificates)), flush=True)


def main(arguments):
    if arguments == ['--list']:
        print(json.dumps([{'section': one.section, 'name': one.name, 'expected': one.expected} for one in CASES]))
    else:
        run(*arguments)


main(sys.argv[1:])
