"""English phrases that give a reason for leaving.

Each theme maps a weight from 0 to 1 (how surely the words mean it) to phrases, parted by ";". In a phrase `word*` takes
any ending, `a|b` either word, `word?` may be left out, and `~` stands for up to three words. Words are matched whole,
in lower case, with contractions written out ("don't" is "do not").
"""

WORDS: dict[str, str] = {
    "PRICE": "price|prices|pricing|cost|costs|fee|fees|charge|charges|rate|rates|bill|bills|premium|premiums|tariff|subscription",
    "VENDOR": "provider|providers|supplier|suppliers|vendor|vendors|carrier|carriers|operator|platform|brand|brands|bank|retailer|network",
    "RIVAL": "competitor|competitors|rival|rivals",
    "BAD": "poor|bad|terrible|awful|horrible|dreadful|appalling|worst|worse|lousy|unacceptable",
    "WORSE": "shoddy|inferior|substandard|disgraceful|pathetic|abysmal|shocking|declining|deteriorating",
    "CARE": "service|support|quality|product|products|expertise|experience|communication|staff|delivery",
    "THING": "website|app|treatment|care|reception|connection|food|workmanship|performance|packaging|goods|handling|response",
}
"""Classes of words; a phrase names a class in capitals."""

PHRASES: dict[str, dict[float, str]] = {
    "gone": {
        0.95: """
            moved|moving|relocated|relocating
                away|abroad|house|home|overseas|interstate|town|city|cities|country|flat;
            moved|moving|relocated|relocating to|into|out ~ town|city|country|area|state|village|region|island;
            left|leave|leaving the|my|our ~ country|area|city|state|region|town; emigrat*; deceased; died; dead;
            passed away; funeral; bereave*; death of; widow*; out of business; ceased trading|operations|operating;
            closed|closing|closes|shut|shutting|wound|winding down|up? our|my|the|his|her|their ~
                business|company|shop;
            closed|closing|shut|shutting our|my|the ~ store|restaurant|cafe|factory|branch|practice;
            business|company|shop|store|firm ~ closed|closing|dissolved|liquidated; business closure;
            no longer live|living|lives|reside*; outside|beyond ~ service|coverage|delivery area;
            not in|out of? ~ service|coverage|delivery area;
            not ~ available|offered|covered at|in ~ new address|area|region;
            not deliver|ship|serve ~ new address|area|region|town|city
        """,
        0.8: """
            moved; moving; relocat*; retired; retiring; retirement; insolven*; liquidat*; bankrupt*;
            move ~ abroad|overseas|away
        """,
        0.6: """
            no longer need*|require*|use*|using|necessary|relevant; not need|require ~ anymore|longer;
            no need ~ anymore; personal|family|health|medical reasons|circumstances|matter*; graduat*; illness;
            hospital; grown|grew up|out of?; lost|losing my job; new address; seasonal
        """,
    },
    "price": {
        0.95: """
            too|very|so|really|more|quite|became|getting|rather|way expensive|costly|pricey|dear; overpriced;
            unaffordab*; PRICE ~ high|higher|expensive|steep|excessive|unreasonable|doubled|tripled;
            high|higher|increased|increasing|rising|raised|excessive|steep|hidden|extra|unreasonable ~ PRICE;
            price|cost|fee|rate|tariff|premium increase*|hike*|rise*|rises|change*;
            PRICE ~ went|gone|go|going|keep* ~ up; can|could not ~ afford; unable to afford; no longer afford;
            not afford; cheaper; less expensive|costly; lower|better|cheaper PRICE|quote|quotes;
            unhappy|dissatisfied|disappointed|annoyed|upset|frustrated with|about|at|by ~ PRICE|increase;
            not happy|satisfied|pleased|like|accept|agree|comfortable with|about|to ~ PRICE|increase;
            not like|accept|want ~ PRICE; costs|cost|costing|charged|charges|charging|paying|pay too much|more;
            too much money; out of ~ budget; beyond ~ budget; not worth ~ money|price|cost|it
        """,
        0.8: """
            expensive; costly; pricey; shipping|delivery|postage cost*|fee|fees|charge|charges;
            budget cut*|constraint*|reduc*; tight budget; save|saving money|costs; cut* costs|spending|expenses;
            poor|bad value; rip off; ripoff; overcharg*; no discount*; undercut*; better|good deal
        """,
        0.5: "price; prices; pricing; cost; costs; fees; charges; discount*; budget; tariff; too much",
    },
    "rival": {
        0.95: """
            competitor|competitors; rival|rivals; competition;
            mov*|switch*|chang*|transfer*|went|going|gone|defect*|migrat* ~ to|for|with ~ RIVAL|VENDOR|company;
            another|different|other|new|alternative|rival ~ VENDOR; better offer|offers|offering;
            someone else ~ offer*|better|cheaper|faster
        """,
        0.8: """
            switched|switching|switch to|over; elsewhere; someone|somewhere else;
            went|gone|going with|to|over ~ another|other|different;
            another|different|other company|shop|store|firm|service|solution|product|app|website|site|seller;
            offered|offers|offering|gave|gives|give me? us? more|better|higher|faster|free|larger|bigger|newer;
            found ~ better|alternative|replacement|nicer|superior;
            better
                alternative*|option*|choice|product|products|device|devices|features|technology|selection|terms|conditions|plan|package;
            signed|joined up? with
        """,
        0.5: """
            alternative|alternatives; switched; switching; their ~ better;
            introductory|welcome|sign|joining up? offer|bonus
        """,
    },
    "oversight": {
        0.95: """
            forgot|forgotten|forget; card ~ expired|expires|expiring|lapsed|outdated; expired|outdated|old ~ card;
            slipped ~ mind; missed|overlooked|forgot* ~ renewal|renew|reminder|notice|invoice|payment|deadline|email;
            renewal|subscription|membership|contract|policy ~ lapsed|expired|slipped|overlooked;
            not mean|intend|want to ~ cancel|leave|lapse|unsubscribe|stop;
            not realise|realize|realised|realized|notice|noticed|know|aware ~ ~
                expire|expired|expiring|lapsed|ended|renewal|renew|due
        """,
        0.8: """
            lapsed; overlooked; oversight; card ~ declined|blocked|replaced|lost|stolen|changed;
            new|changed|lost|replaced ~ card; changed|switched bank|banks|account; late payment|payments;
            no reminder|reminders|notification; never|not ~ reminded|remind; by accident|mistake; accidental*;
            unintentional*; inadvertent*; involuntar*; auto renew*|renewal ~ failed|off;
            payment|direct debit|debit ~ failed|bounced|declined|rejected; payment not ~ through; not renewed in time
        """,
        0.5: "on holiday|vacation; expired; too busy",
    },
    "withholding": {
        0.95: """
            refuse|refuses|refused|refusing ~ pay|payment; not ~ pay|paying until|unless|before;
            will|going not ~ pay|paying; not going to pay; withhold*; withheld; holding back ~ payment|money;
            no payment|money until|unless
        """,
        0.8: """
            stop|stopped|stopping ~ payment|payments|paying; disput* ~ invoice|bill|charge|charges|payment|amount;
            chargeback*; charge back; why should i|we pay
        """,
    },
    "bad_credit": {
        0.95: """
            fraud; fraudster; fraudulent account|order|orders|customer|use|payment*; bad debt; stolen card|identity;
            credit risk; bad|poor credit; identity theft; fake account|identity|orders
        """,
        0.8: """
            fraudulent*; non payment|payments; nonpayment; default|defaulted|defaulting on; payment default;
            in default; written|write off; debt collect*; collections; unpaid invoices|bills|balance|debt;
            abus* ~ refunds|returns|policy|terms; terms violation; blacklist*
        """,
        0.5: "unpaid; arrears; delinquen*",
    },
    "failing": {
        0.95: """
            attitude; rude|rudely|rudeness; impolite; disrespect*; arrogan*; unfriendly; unhelpful; unprofessional;
            incompeten*; dismissive; condescending; hung up; BAD|WORSE ~ CARE|THING;
            CARE|performance ~
                BAD|rude|slow|unreliable|declined|declining|dropped|deteriorated|disappointing|useless|suffered|worsened;
            service|quality|standards ~ gone|going|went down|downhill;
            connection|internet|signal|line|call|calls|network ~
                drops|dropped|dropping|fails|failed|disconnects|unreliable|unstable; dissatisf*; unsatisf*; unhappy;
            disappoint*; frustrat*; fed up; let down; sick of;
            never|not ~ arrive|arrived|deliver|delivered|received|came|showed|turned up?;
            no response|reply|replies|answer|follow|apology|help|solution|one;
            nobody|noone ~ help*|call*|answer*|care*|listen*|respond*|repl*|knew|knows; ignored; ignoring; ignores;
            unanswered; unresolved; unsolved; double|wrongly|incorrectly charged|billed; charged|billed twice;
            broken|broke|kept|empty promise*; promise|promises|promised ~ broken|never|not
        """,
        0.8: """
            terrible; awful; horrible; dreadful; appalling; worst; useless; lousy; shoddy; unacceptable; inferior;
            annoy*; angry; upset; furious; complain*; grievance*; hate|hated; broke; broken; breaks|breaking down;
            defect*; faulty; damaged; malfunction*; crash*; buggy; bugs; glitch*; outage*; downtime; unreliable;
            unstable; disconnect*; unusable; drop* calls|connection*;
            too|very|so slow|complicated|difficult|confusing; late deliver*|arrival|shipment*;
            deliver*|order|orders|parcel*|package*|shipment*|arriv*|goods ~
                late|delayed|damaged|broken|wrong|lost|missing; delay*; lost ~ parcel|package|order|luggage|shipment;
            wrong item*|product*|size|order|goods|bill*|address|model; missing item*|parts|features|functionality;
            waited|waiting|wait ~ weeks|hours|days|months|long|forever|ages|hold; on hold; long wait*|queue*;
            hard|difficult|impossible|hassle to;
            billing|invoice|invoicing|account error*|mistake*|issue*|problem*|mess;
            limited|narrow|small|insufficient|restricted ~
                range|selection|choice|choices|options|services|features|stock|assortment|hours; out of stock;
            sold out; scam; lied; lies; lying; mislead*; misled; decept*; deceiv*; dishonest*; cheated;
            false advertising; waste of money|time; data breach; leaked; spam|spammed|spamming;
            too many emails|calls|messages; mistreat*; untrained; inexperienced; careless*; negligen*; indifferen*;
            neglect*; passed around; refund ~ refused|denied|rejected; overcharg*;
            poor|bad reliability|coverage|signal
        """,
        0.6: """
            lack|lacks|lacking|lacked|absence of?; poor; poorly; bad; slow; mistake*; error|errors; inconvenien*;
            inadequate; insufficient; outdated; confusing; overcharged; refund*; worse; mess; lazy; unsafe; lag; laggy
        """,
        0.45: "problem*; issue|issues; trouble*; late; quality; reliability",
    },
    "nothing": {
        1.0: """
            do not know|remember|recall; not know ~ why|reason; not sure|certain;
            no idea|particular|specific|comment|reason|reasons; no ~ particular|specific|special reason|reasons;
            prefer|rather not ~ say|answer; not want to ~ say|answer|tell; unknown;
            no complaint|complaints|problem|problems; other reason|reasons; not applicable; unspecified; undisclosed;
            free of charge; in charge of; first|top rate; at any rate; competitive price*|pricing; lower carbon;
            moved|moving on; credit card|note; at all cost|costs; late twenties|thirties; take|took issue;
            bad weather; dead line; moved by; upset stomach; with bad luck;
            good|great|excellent|lovely|friendly|wonderful ~ quality|service|support|staff;
            fine|nice|good|great|reasonable|fair|low price|prices;
            price|prices|pricing|cost|costs ~ fair|fine|ok|okay|good|great|reasonable|low
        """
    },
}

LABELS: dict[str, tuple[str, float]] = {
    word: (theme, weight)
    for theme, weight, words in (
        ("price", 0.9, "price prices pricing cost costs fee fees charge charges affordability budget rates tariff money"),
        ("rival", 0.9, "competitor competitors competition rival switch switched competitive"),
        ("gone", 0.9, "moved move moving relocation relocated death deceased closure closed retired emigration"),
        ("failing", 0.8, "service services support quality product products delivery shipping staff communication "
         "reliability website app billing dissatisfaction experience complaint complaints features usability coverage "
         "speed expertise availability stock logistics performance trust performance"),
        ("oversight", 0.8, "renewal expiry expired expiration lapse lapsed forgotten reminder involuntary card"),
        ("bad_credit", 0.8, "credit default fraud debt nonpayment arrears"),
        ("withholding", 0.8, "dispute disputed chargeback"),
        ("nothing", 1.0, "other others none unknown misc miscellaneous various reason"),
    )
    for word in words.split()
}  # fmt: skip
"""Single words that give a reason where the whole answer is a short label such as "Price" or "Delivery issues"."""

LABEL_TAILS = frozenset("issue issues problem problems related reason reasons concern concerns matters".split())

POSITIVE: dict[str, str] = {
    "failing": """
            happy; satisfied; satisfactory; satisfying; pleased; impressed; helpful; friendly; polite; courteous;
            professional; reliable; responsive; good; great; nice; easy; on|in time; trust; trusted; trustworthy;
            honest; quick; quickly; fast; clear; competent; knowledgeable; qualified; trained; fixed; fix; solved;
            solve; resolved; resolve; repaired; delivered; answered; answer; replied; reply; responded; respond;
            care|cared|cares|caring; listen|listened|listening; help|helped|helping; work|works|worked|working;
            recommend; like|liked; enjoy|enjoyed; useful; user friendly; accurate; stable; up to standard|scratch;
            meet|met ~ expectation|expectations|needs|standards; as described|expected|advertised|promised|agreed;
            call|called back; respected; valued; appreciated; understand|understood; transparent; acceptable;
            self service; expertise; knowledge; skills; training; attention; interested
        """,
    "price": """
            cheap; affordable; affordab*; competitive; inexpensive; economical; reasonably priced;
            reasonable|fair|good price*; value for money; worth it|money; good value
        """,
}
"""Words that speak only when negated: "not helpful", "never answered", "lack of affordable plans"."""

NEGATORS = frozenset("not no never without nor neither none nothing hardly barely scarcely nobody".split())
DEFICITS = frozenset(
    "lack lacks lacking lacked insufficient inadequate poor little absence stopped failed fails fail refused".split()
)
"""Words that negate what is good, but not what is bad: a "lack of helpful staff", a "lack of problems"."""
NOT_NEGATING = (
    "not only",
    "not just",
    "not merely",
    "not simply",
    "not to mention",
    "no doubt",
    "no wonder",
    "nothing but",
    "no longer",
    "no less",
)
STOPS = frozenset("but however though although yet and so then while whereas except until unless instead because since as due "
                  ". , ; : ! ? ( )".split())  # fmt: skip
"""Where the scope of a negation ends. "Because" and its like do so unless the negation stands right before them."""
CAUSES = frozenset("because due since as".split())
LEAVING = frozenset("leave leaving left cancel cancelling cancelled quit go going stop stopped close switch".split())
"""Between a negation and its cause these keep the scope open: "did not leave because of the price"."""
AFTERWARDS = (
    r"^ (?:[a-z]+ ){0,2}?(?:was|is|were|are|had|did|has|have|does|played) (?:not|never|nothing|no) (?:[a-z]+ ){0,3}?"
    r"(?:high|expensive|bad|poor|terrible|unreasonable|reason|reasons|problem|problems|issue|issues|cause|factor|why|concern|matter|do|role|important)(?!\S)"
)
"""A negation that follows what it negates: "price was not the reason"."""
