"""Mail, mailboxes and pages in the charsets that they come in."""

from __future__ import annotations

from email.message import EmailMessage

import pytest

from rlm_mcp.service.documents import mailboxes
from rlm_mcp.service.documents.kinds import kind_of
from rlm_mcp.service.documents.mails import read_mail
from rlm_mcp.service.documents.reading import Converted, convert

GERMAN = "Grüße aus Köln, wo Änderungen möglich sind"
RUSSIAN = "Ошибка при открытии файла, попробуйте позже"
JAPANESE = "データベースに接続できませんでした。もう一度お試しください。"


def only(name: str, data: bytes) -> Converted:
    (one,) = convert(name, kind_of(name, data[:8192]), data)
    assert isinstance(one, Converted), one
    return one


def mail(body: str = "", charset: str = "utf-8", cte: str | None = None) -> EmailMessage:
    message = EmailMessage()
    message["From"] = "Ann <ann@example.org>"
    message["Subject"] = "Größe von 日本"
    if body:
        message.set_content(body, charset=charset, cte=cte)
    return message


@pytest.mark.parametrize(
    ("text", "charset", "cte"),
    [
        (GERMAN, "iso-8859-1", "quoted-printable"),
        (GERMAN, "windows-1252", "8bit"),
        (RUSSIAN, "koi8-r", "base64"),
        (JAPANESE, "iso-2022-jp", "7bit"),
        (JAPANESE, "shift_jis", "base64"),
        ("数据库已经关闭", "gb2312", "base64"),
        ("데이터베이스", "euc-kr", "8bit"),
    ],
)
def test_mail_is_read_in_the_charset_that_it_names(text: str, charset: str, cte: str) -> None:
    one = only("a.eml", bytes(mail(text, charset, cte)))

    expected = "Subject: Größe von 日本\nFrom: Ann <ann@example.org>\n\n"
    assert one.data.decode().rstrip() == expected + text


@pytest.mark.parametrize("charset", ["utf-8", "cp1252"])
def test_mail_that_names_no_charset_is_read_all_the_same(charset: str) -> None:
    data = f"From: a@b\nSubject: Müller\n\n{GERMAN}\n".encode(charset)

    assert only("a.eml", data).data.decode() == f"Subject: Müller\nFrom: a@b\n\n{GERMAN}\n\n"


def test_words_of_a_mail_are_taken_once_and_what_is_attached_is_named() -> None:
    inner = mail("The forwarded words.")
    both = mail("The plain words.")
    both.add_alternative("<p>The <b>marked</b> words.</p>", subtype="html")
    both.add_attachment(inner)
    both.add_attachment(b"x", maintype="application", subtype="pdf", filename="ä\x1b[31m.pdf")
    both.add_attachment(b"x", maintype="image", subtype="png")

    one = only("a.eml", bytes(both))

    text = one.data.decode()
    assert text.index("The plain words.") < text.index("The forwarded words.")
    assert (text.count("Subject: "), "marked" in text) == (2, False)
    assert one.notes == ("attachments were left out: ä?[31m.pdf, image/png",)


def test_mail_that_is_html_alone_becomes_its_words() -> None:
    message = mail()
    message.set_content("<p>The <b>marked</b> words.</p>", subtype="html")

    assert "The **marked** words." in only("a.eml", bytes(message)).data.decode()


def test_mail_whose_parts_are_nested_without_end_is_shown_as_it_is() -> None:
    head = b"Subject: deep\n"
    part = b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n"

    deep = head + b"".join(part % (level, level) for level in range(5000)) + b"\nthe core"

    assert "the core" in only("a.eml", deep).data.decode()


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_mailbox_is_cut_at_the_lines_between_its_mails(end: str) -> None:
    lines = ["From - Fri Jan 02 10:00:00 2026", "Subject: one", "", "First paragraph."]
    lines += ["", "From the start it was clear.", "", "From now on we meet at 10:30 sharp."]
    lines += ["", "From x", "Subject: two", "", "Bye.", ""]
    box = end.join(lines).encode()

    assert [mail.split()[1] for mail in mailboxes.mails_of(box)] == [b"one", b"two"]
    one = only("box.mbox", box)
    assert [label for _, label in one.pages] == ["mail 1", "mail 2"]
    assert "From the start it was clear." in one.data.decode()
    assert "From now on we meet at 10:30 sharp." in one.data.decode()


# --- pages ---


def page(text: str, head: str = "") -> str:
    return f"<html><head>{head}</head><body><h1>{text}</h1></body></html>"


@pytest.mark.parametrize(
    ("text", "charset", "named"),
    [
        (GERMAN, "cp1252", "iso-8859-1"),
        (GERMAN, "cp1252", ""),
        (RUSSIAN, "cp1251", "windows-1251"),
        (RUSSIAN, "koi8-r", ""),
        (JAPANESE, "cp932", "Shift_JIS"),
        (JAPANESE, "euc-jp", ""),
        (JAPANESE, "iso-2022-jp", "iso-2022-jp"),
        (JAPANESE, "iso-2022-jp", ""),
        (JAPANESE, "utf-8-sig", ""),
        (JAPANESE, "utf-16", "utf-8"),
        (JAPANESE, "utf-8", "shift_jis"),
        (JAPANESE, "utf-8", "no-such-charset"),
        (GERMAN, "utf-8", "rot13"),
    ],
)
def test_a_page_is_read_in_its_charset(text: str, charset: str, named: str) -> None:
    head = f'<meta http-equiv="Content-Type" content="text/html; charset={named}">' if named else ""

    one = only("a.html", page(text, head).encode(charset))

    assert (one.data.decode().strip(), one.notes) == (f"# {text}", ())


@pytest.mark.parametrize(
    "charset",
    ["utf-8-sig", *(f"utf-{bits}{end}" for bits in (16, 32) for end in ("", "-le", "-be"))],
)
@pytest.mark.parametrize("head", ["", "<meta charset=utf-16>", "<meta charset=iso-8859-1>"])
def test_a_page_in_a_wide_charset_is_read_with_and_without_a_mark(charset: str, head: str) -> None:
    for before in ("", "\r\n\t "):
        for text in (GERMAN, JAPANESE):
            one = only("a.html", (before + page(text, head)).encode(charset))

            assert text in one.data.decode()
            assert one.notes == ()


def test_a_page_that_names_a_wide_charset_and_is_in_none_is_utf_8() -> None:
    for charset in ("utf-16", "utf-16le", "utf-32"):
        for text in (GERMAN, JAPANESE, "plain words"):
            one = only("a.html", page(text, f"<meta charset={charset}>").encode())

            assert text in one.data.decode()


@pytest.mark.parametrize("named", ["iso-8859-2", "ISO-8859-2", "utf-16"])
def test_a_page_is_read_in_the_charset_that_its_xml_declaration_names(named: str) -> None:
    charset = "utf-16-be" if named == "utf-16" else named
    text = "Łódź i Gdańsk"
    declared = f"<?xml version='1.0' encoding='{named}'?>\n" + page(text, "")

    assert text in only("a.xhtml", declared.encode(charset)).data.decode()


def test_what_a_page_lacks_of_its_charset_is_counted() -> None:
    data = page("Ж is Zhe", "<meta charset=cp1252>").encode("cp1251").replace(b"\xc6", b"\x81")

    assert only("a.html", data).notes == ("1 characters could not be read and became U+FFFD",)


def test_pictures_within_a_page_are_left_out_and_counted() -> None:
    text = '<p>words</p><img src="data:image/png;base64,iVBORw0KGgo=" alt="a dot">'

    one = only("a.html", text.encode())

    assert "base64" not in one.data.decode()
    assert one.notes == ("1 picture was left out",)


def test_a_notebook_may_begin_with_a_byte_order_mark() -> None:
    data = b'{"cells": [{"cell_type": "markdown", "metadata": {}, "source": "words"}], '
    data += b'"metadata": {}, "nbformat": 4, "nbformat_minor": 5}'

    assert only("a.ipynb", b"\xef\xbb\xbf" + data).data == only("a.ipynb", data).data


def test_a_mail_that_names_utf_8_and_is_in_another_charset_is_read_in_that() -> None:
    words = "Ein schöner Gruß aus Köln"
    head = b"Subject: x\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n"

    assert words in read_mail(head + words.encode("cp1252"), str).text
