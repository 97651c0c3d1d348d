"""Random requests to S3, and how botocore signs them.

    s3_oracle.py SEED N

One line a request, of fields in hex that tabs part: method, key of the object,
access key, secret key, region, seconds since 1970, number of pairs of the
query, its names and values, number of headers, their names and values; then
botocore's canonical request and its value of the header Authorization.

Exit status 77: there is no botocore.
"""
import datetime
import random
import sys

try:
    from botocore.auth import S3SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials
    from botocore.utils import percent_encode
except ImportError:
    sys.exit(77)

PLAIN = "abcxyzABCXYZ0189-._~"
HARD = PLAIN + "/ %+&=?#$,;:@!'()*[]{}|\\\"<>^`\u00e4\u20ac\U0001f980\x01\x7f"


def text(rng, letters, most, least=0):
    return "".join(rng.choices(letters, k=rng.randint(least, most)))


def request(rng):
    key = Credentials(text(rng, PLAIN, 20, 1), text(rng, PLAIN + "/+=", 40, 1),
                      rng.choice([None, text(rng, PLAIN + "/+=", 300, 1)]))
    region = rng.choice(["us-east-1", "eu-central-1", "default"])
    seconds = rng.randrange(1 << 32)
    name = text(rng, HARD, 30) + rng.choice(["", "/../a", "//", "/./"])
    host = rng.choice(["bucket.s3.amazonaws.com", "127.0.0.1:9000"])
    query = [(text(rng, HARD, 6, 1), text(rng, HARD, 8))
             for _ in range(rng.randint(0, 5))]
    headers = [("host", host), ("range", "bytes=0-%d" % rng.randrange(1 << 40))]
    if rng.random() < 0.5:
        headers.append(("if-match", '"%s"' % text(rng, "0af-", 30)))
    if rng.random() < 0.3:
        headers.append(("x-amz-meta-a", "  a   b \t c  "))
    method = rng.choice(["GET", "HEAD"])
    made = AWSRequest(method, "https://" + host + "/" +
                      percent_encode(name, safe="/-._~"),
                      headers=dict(headers), params=query)
    when = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
    made.context["timestamp"] = when.strftime("%Y%m%dT%H%M%SZ")
    auth = S3SigV4Auth(key, "s3", region)
    auth._modify_request_before_signing(made)
    canonical = auth.canonical_request(made)
    signature = auth.signature(auth.string_to_sign(made, canonical), made)
    auth._inject_signature_to_request(made, signature)
    headers += [(n.lower(), v) for n, v in made.headers.items()
                if n.lower().startswith("x-amz-") and n != "x-amz-meta-a"]
    fields = [method, name, key.access_key, key.secret_key, region, str(seconds)]
    for pairs in (query, headers):
        fields.append(str(len(pairs)))
        for pair in pairs:
            fields += pair
    return fields + [canonical, made.headers["Authorization"]]


def main():
    rng = random.Random(int(sys.argv[1]))
    for _ in range(int(sys.argv[2])):
        print("\t".join(f.encode().hex() for f in request(rng)))


if __name__ == "__main__":
    main()
