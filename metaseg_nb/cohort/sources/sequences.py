"""What a text says about a sequence: whether it is the contrast-enhanced T1."""

import re

AGENT = r"(?:contrast(?:[-_ ]?(?:agent|medium|media))?|gadolinium|gadolin\w*|gado\w*|gad|gd|ce|km|kontrast\w*|dotarem)"
ENHANCED = rf"(?:{AGENT}|c|enhanc\w*|inject\w*)"
NO = r"(?:pre|no|non|not|none|without|w/?o|ohne|sans|senza|sin|before|vor|avant|free[-_ ]of|minus)"
YES = r"(?:with|mit|avec|post|after|nach|plus|\+)"
# "(?<![a-z])" and "(?![a-z])": whole words, between which "_", "-", digits and blanks may stand.
PLAIN = re.compile(
    rf"(?<![a-z]){NO}[-_ (]*(?:(?:any|iv|i\.v\.|intravenous|t1w?)[-_ ]*)*{ENHANCED}(?![a-z])"
    rf"|(?<![a-z])(?:unenhanced|nonenhanced|noncontrast|precontrast|nativ\w*|plain)(?![a-z])"
    rf"|(?<![a-z]){AGENT}[-_ ]*(?:[:=][-_ ]*)?(?:no|none|off|false|free|0)(?![a-z0-9])",
    re.IGNORECASE,
)
ENHANCED_T1 = re.compile(
    rf"(?:t1w?[-_ +]*|\+ ?)(?:c|{AGENT})(?![a-z])"
    r"|t1(?![0-9]).*(?<![a-z])post(?![a-z])(?![-_ ]?(?:op|surg|treat|rt|radi|therap|resect|chemo))"
    rf"|(?<![a-z]){AGENT}(?![a-z])"
    rf"|{YES}[-_ ]*(?:iv[-_ ]*)?{AGENT}(?![a-z])|(?<![a-z])enhanced(?![a-z])",
    re.IGNORECASE,
)
T1 = re.compile(r"t1(?![0-9])", re.IGNORECASE)
OTHER = re.compile(r"t2|flair|dwi|adc|swi|perf|pd(?![a-z])", re.IGNORECASE)


def is_enhanced_t1(text: str) -> bool:
    """Tell whether a text, such as a file's name or a channel's, names the contrast-enhanced T1.

    ``T1c``, ``T1ce``, ``T1Gd``, ``ce-gad_T1w``, ``T1 with gadolinium`` do; ``T1 without gadolinium``,
    ``non-contrast-enhanced``, ``pre_gd``, ``contrast-enhanced FLAIR`` do not.
    """
    other = OTHER.search(text) and not T1.search(text)
    return bool(ENHANCED_T1.search(text)) and not is_plain(text) and not other


def is_plain(text: str) -> bool:
    """Tell whether a text says that no contrast agent was given."""
    return bool(PLAIN.search(text))
