"""Mostly ASCII with a few letters and signs beyond it, in the charsets that people have."""

from __future__ import annotations

import pytest

from rlm_mcp.service.contexts.text_reader import TextReader

LOG = "2026-01-01 12:00:00 INFO request handled in 12 ms by worker 3\n"
# What stands among plain lines, and how often.
FORMS = ("{text}", "{log}{text}", "{many}", "{text}{log}{log}{text}")

SAMPLES = [
    # English
    ("cp1252", "Invoice total £12.00, paid £3.50 and £8.50 later\n"),
    ("cp1252", "item,price\nPen,£1\nBook,£12.99\nLamp,£40\n"),
    ("cp1252", "It’s what they don’t know; that’s all we’ve got.\n"),
    ("cp1252", "He said “no” – and left. “Why?” she asked.\n"),
    ("cp1252", "The ‘new’ plan—if any—isn’t here…\n"),
    ("cp1252", "We met at the café, a cliché, with a résumé and a naïve view.\n"),
    ("cp1252", "id;name\n1;Muñoz\n2;João\n3;Müller\n4;Søren\n5;Ångström\n6;Zoë\n7;François\n"),
    ("cp1252", "Seen at 21°C, 22 °F, ±2 mm, 30 m², 5 µm, 3×4, ½ cup\n"),
    ("cp1252", "© 2024 Foo™ and Bar® • see § 12 and § 13\n"),
    ("cp1252", "• one\n• two\n• three\n• four\n"),
    ("cp1252", "10\xa0000 km, 20\xa0000 km, 1\xa0234 km\n"),
    ("iso8859-15", "price: 12 € or € 14,50 or 15€, cœur\n"),
    ("mac-roman", "It’s what they don’t know; that’s “all”.\n"),
    ("cp850", "Total £12.00, paid £3.50 and £8.50 later\n"),
    # French
    ("cp1252", "Voilà où est passé l'élève, ça va être dur. Noël à la forêt.\n"),
    ("cp1252", "Elle a dit : « c’est déjà ça ». Le cœur, l’œuvre.\n"),
    ("cp1252", "ville;code\nNîmes;30000\nOrléans;45000\nBesançon;25000\n"),
    ("mac-roman", "Voilà où est passé l'élève, ça va être dur.\n"),
    ("cp850", "Voilà où est passé l'élève, ça va être dur.\n"),
    # German
    ("cp1252", "Die Straße ist für Fußgänger.\n"),
    ("cp1252", "Größe;Länge;Höhe\n12;13;14\n"),
    ("cp1252", "„Schön“, sagte er – und ging.\n"),
    ("cp850", "Die Größe für Fußgänger, schöne Änderung\n"),
    # Spanish
    ("cp1252", "Señor Muñoz Peña signed in A Coruña.\n"),
    ("cp1252", "Año;País;Población\n2020;España;47\n2021;Perú;33\n"),
    ("cp1252", "La dirección nº 5, 1ª planta, calle Núñez. ¿Cómo está?\n"),
    ("mac-roman", "El niño comió en España, mañana más café aquí\n"),
    # Portuguese
    ("cp1252", "João, São Paulo. Não há informação.\n"),
    ("cp1252", "Código;Descrição;Preço\n1;Maçã;2\n2;Pão;1\n3;Limões;4\n"),
    # Italian
    ("cp1252", "Perché no? Così va.. già\n"),
    ("cp1252", "Citta;Qualità;Età\nForlì;x;9\nCantù;y;8\n"),
    # Swedish and its neighbours
    ("cp1252", "Åsa bor på Öland, där är det kallt.\n"),
    ("cp1252", "Namn;Ort\nBjörk;Malmö\nSjöberg;Umeå\nHåkan;Älmhult\n"),
    ("cp1252", "København;Århus;Ålborg;Nørrebro\n"),
    ("cp1252", "Þetta er gott, það er íslenska og ég á hús.\n"),
    # Polish
    ("cp1250", "Łukasz Wałęsa z Łodzi\n"),
    ("cp1250", "Gdańsk, Toruń, Poznań, Kraków\n"),
    ("cp1250", "imię;miasto\nJan;Łódź\nEwa;Kraków\nAdam;Gdańsk\n"),
    ("iso8859-2", "Błąd odczytu: nie można otworzyć pliku, spróbuj później, jeśli są\n"),
    ("cp852", "Błąd odczytu: nie można otworzyć pliku, spróbuj później, jeśli są\n"),
    # Czech and Slovak
    ("cp1250", "Chyba: soubor nelze otevřít, zkuste později\n"),
    ("iso8859-2", "jméno;město\nJiří;Plzeň\nTomáš;Ústí\nAleš;Děčín\n"),
    ("cp1250", "Najdôležitejšie je, že ľudia vedia, kde žijú.\n"),
    # Hungarian
    ("cp1250", "A fájl nem található, próbálja később újra, ő is\n"),
    ("cp1250", "név;város\nErzsébet;Győr\nBéla;Hódmezővásárhely\nJenő;Fűzfő\n"),
    # Turkish, Croatian, Romanian and the Baltic languages
    ("cp1254", "Dosya açılamadı, lütfen tekrar deneyin, değil mi?\n"),
    ("cp1254", "ad;şehir\nAyşe;İstanbul\nÇağlar;Eskişehir\nIşıl;Muğla\n"),
    ("cp1250", "Pogreška pri učitavanju, molimo pokušajte kasnije, šećer\n"),
    ("cp1250", "Bucureşti este capitala României şi cel mai mare oraş al ţării.\n"),
    ("cp1257", "Šiauliai ir Kėdainiai yra miestai, ačiū už žinią\n"),
    ("cp1257", "Kļūda, lūdzu mēģiniet vēlāk, paldies\n"),
]


def read(data: bytes) -> tuple[str, TextReader]:
    reader = TextReader()
    return b"".join([*reader.feed(data), *reader.end()]).decode("utf-8", "replace"), reader


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("charset", "sample"), SAMPLES)
def test_a_few_letters_and_signs_among_ascii_are_read(charset: str, sample: str, form: str) -> None:
    text = form.format(text=sample, log=LOG * 300, many=(LOG * 20 + sample) * 40)

    found, reader = read(text.encode(charset))

    assert (found == text, reader.replaced) == (True, 0), (reader.charset, sample)
    assert reader.charset == charset or sample.encode(charset) == sample.encode(reader.charset)


@pytest.mark.parametrize(
    ("charset", "text"),
    [
        ("cp1252", "Ma sœur est là.\n"),
        ("cp1252", "A day à la carte\n"),
        ("cp1252", "Greška pri otvaranju\n"),
        ("cp850", "Datei öffnen, später erneut\n"),
        ("cp850", "más tarde, café\n"),
        ("cp1250", "Lech Wałęsa\n"),
        ("cp1250", "Jenő is here\n"),
    ],
)
def test_one_or_two_letters_are_read_in_the_charset_that_makes_a_word_of_them(
    charset: str, text: str
) -> None:
    found, reader = read(text.encode(charset))

    assert (found, reader.charset, reader.replaced) == (text, charset, 0)


@pytest.mark.parametrize(
    ("charset", "text"),
    [
        ("cp932", "name,ソ,表,十,能\n"),
        ("cp932", "メモ: see 表 1 and ソフト\n"),
        ("cp949", "Total 총 3개, page 5쪽, 합 7원\n"),
        ("cp949", "id,name\n1,김\n2,이\n3,박\n4,최\n5,정\n6,강\n"),
        ("big5", "id,name\n1,張\n2,王\n3,李\n4,陳\n5,劉\n6,楊\n7,趙\n"),
    ],
)
def test_single_east_asian_characters_among_ascii_stay_so(charset: str, text: str) -> None:
    found, reader = read(text.encode(charset))

    assert (found, reader.charset) == (text, charset)


@pytest.mark.parametrize(
    "data", [b"cut \xe2\n", b"caf\xc3\n" * 4, b"cut \xe2\x80\n" * 3, b"a \x81 b \x8d c \x9d\n"]
)
def test_bytes_that_make_no_sense_are_no_text_of_windows(data: bytes) -> None:
    assert read(data)[1].charset != "cp1252"
